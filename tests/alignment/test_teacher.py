"""Teacher data: the beams stored are those the decoder settles, interrupted runs resume, foreign data is refused."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.alignment import distributions, losses, teacher
from atspeed_jax.alignment.align import AlignConfig, Alignment, align_loss
from atspeed_jax.alignment.batches import alignment_batches
from atspeed_jax.alignment.teacher import TeacherConfig, TeacherTask, make_teacher
from atspeed_jax.alignment.teacher_files import TeacherError, load_teacher
from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep, init_params

HISTORY = 4
SETTINGS = TeacherConfig(beams=3, prompts=2, batch_size=4, buckets=(HISTORY,), log_probs=True)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(rng.integers(0, 4, (30, 3)))
    train = tuple(rng.integers(0, 30, size).astype(np.int32) for size in (0, 1, 2, 3, 7, 5, 1, 4, 2))
    empty = tuple(np.zeros(0, np.int32) for _ in train)
    model = LlamaConfig(catalog.vocab_size, 16, 32, 1, 2, 2, 8, 1e4, 1e-6, True, 0.0, "float32", False)
    params = jax.tree.map(lambda x: 8 * x, init_params(model, jax.random.key(0)))
    context = tree_context(build_trie(catalog.id_tokens), catalog.id_tokens)
    return Dataset("toy", catalog, train, empty, empty), model, params, context


ABOUT = {"target": "t1", "score_norm": "vocab", "beams": "3"}


def load(directory, fingerprint="a", about=ABOUT):
    return load_teacher(directory, fingerprint=fingerprint, about=about)


def run(directory, world, fingerprint="a", progress=lambda parts: parts, settings=SETTINGS, about=ABOUT):
    task = TeacherTask(*world, settings, history=HISTORY, score_norm="vocab")
    how = {"place": lambda batch: batch, "on_begin": lambda: None, "progress": progress}
    make_teacher(directory, task, fingerprint=fingerprint, about=about, **how)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """Two finished directories, "with" and "without" log-probabilities. Read them, never write into them."""
    place = tmp_path_factory.mktemp("teacher")
    run(place / "with", world)
    run(place / "without", world, settings=dataclasses.replace(SETTINGS, log_probs=False))
    return place


@pytest.fixture
def copy(made, tmp_path):
    """A finished directory that may be changed."""
    return shutil.copytree(made / "with", tmp_path / "t")


def test_masked_codes_are_stored_as_finite_numbers():
    """-inf times the probability 0 would be NaN in a divergence."""
    values = np.array([0.0, np.finfo(np.float32).min, -3.5], np.float32)
    stored = distributions.to_float16(values)
    assert stored.dtype == np.float16
    assert stored.tolist() == [0.0, np.finfo(np.float16).min, -3.5]
    p, q = (jnp.asarray(x, jnp.float32)[None, None] for x in (stored, [-1.0, -1.0, -2.0]))
    np.testing.assert_allclose(losses.tree_kd(p, q, jnp.ones(p.shape, bool)), [[1 + np.exp(-3.5) * -1.5]], rtol=1e-3)


def test_stored_beams_are_those_of_beam_search(made, world):
    dataset, model, params, context = world
    beams = load(made / "with").beams
    histories = teacher_prompts(dataset, 2)[0]
    assert beams.shape == (len(histories), 3, 3)
    for example, items in enumerate(histories):
        tokens = prompt_tokens(dataset.catalog, items, HISTORY)
        tokens = jnp.asarray(np.pad(tokens, (1 + 3 * HISTORY - len(tokens), 0)))[None]  # one shape, one compilation
        result = beam_search(
            LlamaStep(model), params, context.trie, Prompt(tokens, tokens > 0), beams=3, score_norm="vocab"
        )
        assert set(beams[example, -1].tolist()) == set(np.asarray(result.ids[0]).tolist())


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
        load(tmp_path / "cut")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("part-*")}
    assert len(kept) == 2
    run(tmp_path / "cut", world)
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == time for name, time in kept.items())
    whole, cut = (load(tmp_path / name) for name in ("whole", "cut"))
    for name in ("beams", "log_probs", "start"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut, name))
    assert len(whole.log_probs) == whole.start[-1] > 0
    assert whole.log_probs.dtype == np.float16


@pytest.mark.parametrize("score_norm", ["vocab", pytest.param("trie", marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", ["tree_kd", "atspeed_s", "coverage"])
def test_stored_log_probabilities_give_the_loss_of_the_target_in_the_step(made, world, objective, score_norm):
    dataset, model, target, context = world
    config = AlignConfig(
        objective, alpha=0.8, temperature=1.0, top_k=2, density_weight=1.0, coverage_weight=1.0, score_norm=score_norm
    )
    draft = jax.tree.map(lambda x: 5 * x, init_params(model, jax.random.key(1)))
    loss = jax.jit(jax.value_and_grad(align_loss, argnums=1, has_aux=True), static_argnums=0)
    alignment = Alignment(config, model, model, (3, 4))
    found = []
    for name in ("with", "without"):
        teacher = load(made / name)
        batch = alignment_batches(
            dataset, context.trie, teacher, BatchShape(HISTORY, (HISTORY,), 8), prompts=2, seed=0
        )[0]
        assert ("log_probs" in batch) == (name == "with")
        # With stored values the target must not be needed at all.
        params = jax.tree.map(jnp.zeros_like, target) if name == "with" else target
        found.append(loss(alignment, draft, params, context, batch, None))
    stored, online = found
    assert float(stored[0][1]["align_loss"]) == pytest.approx(float(online[0][1]["align_loss"]), rel=2e-3)  # float16
    # float16 keeps 11 bits: an error of 2**-11 of a log-probability, and so of a gradient (up to 8.4 here).
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-3, rtol=1e-3), stored[1], online[1])


def test_beams_of_another_target_are_refused(copy, world):
    another = ABOUT | {"target": "t2", "beams": "4"}
    for refused in (functools.partial(run, world=world), load):
        with pytest.raises(TeacherError, match=r"another target.*\(target: t1 -> t2, beams: 3 -> 4\): delete it"):
            refused(copy, fingerprint="b", about=another)
    (copy / "made_from.json").unlink()  # as older code left it
    load(copy)
    with pytest.raises(TeacherError, match=r"another target.*\(a, now b\): delete it"):
        load(copy, fingerprint="b", about=another)


def test_beams_that_are_not_all_there_are_refused(tmp_path, world, monkeypatch):
    monkeypatch.setattr(teacher, "BATCHES_PER_PART", 1)
    run(tmp_path / "t", world)
    first = tmp_path / "t" / "part-00000.parquet"
    whole = first.read_bytes()
    first.unlink()
    with pytest.raises(TeacherError, match=r"lacks part-00000.parquet of its \d parts: delete .*make_teacher again"):
        load(tmp_path / "t")
    pq.write_table(pq.read_table(pa.BufferReader(whole)).slice(1), first)
    with pytest.raises(TeacherError, match=r"holds \d+ prompts of \d+: delete"):
        load(tmp_path / "t")


@pytest.mark.parametrize("keep", [0, 0.5])
@pytest.mark.parametrize("name", ["part-00000.parquet", "complete.json"])
def test_a_damaged_file_is_named(copy, name, keep):
    path = copy / name
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(TeacherError, match=f"{path} is damaged .*[;:] delete {copy} and run launch.make_teacher"):
        load(copy)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"fingerprint": "a", "prompts": 4, "parts": 0}', '{"prompts": 0, "parts": 1}', '{"parts": "a"}'],
)
def test_a_record_of_other_content_is_named_by_whoever_relies_on_it(copy, world, content):
    (copy / "complete.json").write_text(content)
    for refused in (functools.partial(run, world=world), load):
        with pytest.raises(TeacherError, match=f"{copy}/complete.json is damaged .*; delete {copy} and run"):
            refused(copy)


def test_prompts_out_of_range_are_refused():
    with pytest.raises(ValueError, match="prompts=0"):
        dataclasses.replace(SETTINGS, prompts=0)
