"""Teacher data: the beams stored are those the decoder settles, interrupted runs resume, foreign data is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment import teacher
from atspeed_jax.alignment.teacher import (
    TeacherConfig,
    TeacherError,
    alignment_batches,
    load_teacher,
    make_teacher,
    next_item_examples,
)
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep, init_params

HISTORY = 4
SETTINGS = TeacherConfig(beams=3, batch_size=4, buckets=(HISTORY,))


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(rng.integers(0, 4, (30, 3)))
    train = tuple(rng.integers(0, 30, size).astype(np.int32) for size in (0, 1, 2, 3, 7, 5, 1, 4, 2))
    empty = tuple(np.zeros(0, np.int32) for _ in train)
    model = LlamaStep(LlamaConfig(catalog.vocab_size, 16, 32, 1, 2, 2, 8, 1e4, 1e-6, True, 0.0, "float32", False))
    params = jax.tree.map(lambda x: 8 * x, init_params(model.config, jax.random.key(0)))
    return Dataset("toy", catalog, train, empty, empty), model, params, build_trie(catalog.id_tokens)


def run(directory, world, fingerprint="a", progress=lambda parts: parts):
    make_teacher(
        directory, *world, SETTINGS, history=HISTORY, score_norm="vocab", fingerprint=fingerprint, progress=progress
    )


def test_stored_beams_are_those_of_beam_search(tmp_path, world):
    dataset, model, params, trie = world
    run(tmp_path / "t", world)
    beams = load_teacher(tmp_path / "t", fingerprint="a")
    assert beams.shape == (9, 3, 3)
    for user, items in enumerate(dataset.train):
        tokens = prompt_tokens(dataset.catalog, items[:-1], HISTORY)
        tokens = jnp.asarray(np.pad(tokens, (1 + 3 * HISTORY - len(tokens), 0)))[None]  # one shape, one compilation
        result = beam_search(model, params, trie, Prompt(tokens, tokens > 0), beams=3, score_norm="vocab")
        assert set(beams[user, -1].tolist()) == set(np.asarray(result.ids[0]).tolist())


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, world, monkeypatch):
    monkeypatch.setattr(teacher, "BATCHES_PER_PART", 1)
    run(tmp_path / "whole", world)

    def stop_after_two(parts):
        for number, part in enumerate(parts):
            if number == 2:
                raise KeyboardInterrupt
            yield part

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", world, progress=stop_after_two)
    with pytest.raises(TeacherError, match="make_teacher"):
        load_teacher(tmp_path / "cut", fingerprint="a")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("part-*")}
    assert len(kept) == 2
    run(tmp_path / "cut", world)
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == time for name, time in kept.items())
    whole, cut = (load_teacher(tmp_path / name, fingerprint="a") for name in ("whole", "cut"))
    np.testing.assert_array_equal(whole, cut)


def test_beams_of_another_target_are_refused(tmp_path, world):
    run(tmp_path / "t", world)
    with pytest.raises(TeacherError, match="delete it"):
        run(tmp_path / "t", world, fingerprint="b")
    with pytest.raises(TeacherError, match="another target"):
        load_teacher(tmp_path / "t", fingerprint="b")


def test_batches_hold_prompt_beams_and_next_item_of_one_user(world):
    dataset = world[0]
    beams = np.arange(9 * 3 * 3, dtype=np.int32).reshape(9, 3, 3)
    histories, next_items = next_item_examples(dataset)
    assert next_items[0] == -1 and len(histories[1]) == 0
    batches = alignment_batches(dataset, beams, history=HISTORY, buckets=(1, 2), batch_size=2, seed=0)
    seen = set()
    for step in range(60):
        batch = batches[step]
        for row in range(2):
            user = int(batch["beams"][row, 0, 0]) // 9
            seen.add(user)
            np.testing.assert_array_equal(batch["beams"][row], beams[user, :-1])
            assert batch["next_id"][row] == dataset.catalog.id_of_item[dataset.train[user][-1]]
            expected = prompt_tokens(dataset.catalog, dataset.train[user][:-1], HISTORY)
            np.testing.assert_array_equal(batch["tokens"][row][batch["valid"][row]], expected)
    assert seen == set(range(1, 9)), "everyone with a train item, and nobody else"
