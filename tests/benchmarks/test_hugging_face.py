"""Our beam search gives the lists of Hugging Face `generate`; skipped where transformers is not installed."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from atspeed_jax.benchmarks.hugging_face import same_lists, shared_model
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import BOS, Catalog
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import DecodeConfig, Setting
from bases import BASE
from numpy_llama import wide_params

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of transformers and torch
]
CATALOG = Catalog(np.random.default_rng(0).integers(0, 9, (150, 4)), (9,) * 4)
CONFIG = dataclasses.replace(
    BASE,
    vocab_size=CATALOG.vocab_size,
    hidden_size=24,
    intermediate_size=40,
    layers=2,
    heads=4,
    kv_heads=2,
)
USERS = 24


class Remembered:
    """`generate`, which runs once for what several tests ask for."""

    def __init__(self, generate):
        self.generate, self.found = generate, {}

    def __call__(self, batch, beams, *, trie):
        asked = np.asarray(batch["tokens"]).tobytes(), beams, trie, self.generate.model.dtype
        if asked not in self.found:
            self.found[asked] = self.generate(batch, beams, trie=trie)
        return self.found[asked]

    def in_float64(self):
        return self.generate.in_float64()


@pytest.fixture(scope="module")
def model():
    trie = build_trie(CATALOG.id_tokens)
    prior = popularity_prior(trie, CATALOG.id_tokens, np.ones(len(CATALOG.ids)))
    prefixes = prefixes_by_norm(CATALOG.id_tokens)
    decoders = Decoders(CONFIG, wide_params(CONFIG, seed=0), None, None, trie, prior, prefixes)
    with shared_model("random", decoders, CATALOG, DecodeConfig(("all", 20, 20), 3, "vocab")) as shared:
        yield dataclasses.replace(shared, hugging_face=Remembered(shared.hugging_face))


@pytest.fixture(scope="module")
def users():
    """Ragged histories of 0 to 5 items, left-padded."""
    rng = np.random.default_rng(1)
    tokens, valid = np.zeros((USERS, 21), np.int32), np.zeros((USERS, 21), bool)
    for user in range(USERS):
        items = rng.integers(0, CATALOG.items, user % 6)
        own = [BOS, *CATALOG.tokens(items).reshape(-1)]
        tokens[user, 21 - len(own) :], valid[user, 21 - len(own) :] = own, True
    return {"tokens": tokens, "valid": valid, "row": np.arange(USERS)}


@pytest.mark.parametrize("beams", [1, pytest.param(5, marks=pytest.mark.slow), 20])
def test_constrained_generate_gives_our_lists(model, users, beams):
    ours = model.decoders.build(Setting.beam_search(beams, "vocab"))(prompt_of(users))
    assert same_lists(model, users, beams, ours)
    ids, scores, _ = model.hugging_face(users, beams, trie=True)
    assert ids.shape == (USERS, beams, 4)
    assert np.isfinite(scores).all()
    assert len({tuple(row) for row in ids[:, 0]}) > 5  # users differ, so that a wrong row would be seen


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("wrong", [np.nan, 1e-3])
def test_other_scores_are_seen(model, users, beams, wrong):
    ours = model.decoders.build(Setting.beam_search(beams, "vocab"))(prompt_of(users))
    found = model.hugging_face(users, beams, trie=True)
    other = found._replace(score=found.score + np.where(np.arange(USERS) == 3, wrong, 0.0)[:, None])
    assert np.flatnonzero(differing(other, ours)).tolist() == [3]


def test_other_lists_are_seen(model, users):
    """Two places exchanged, another score, another model."""
    ours = model.decoders.build(Setting.beam_search(5, "vocab"))(prompt_of(users))
    exchanged = ours.replace(tokens=ours.tokens.at[3, :2].set(ours.tokens[3, 1::-1]))
    other = dataclasses.replace(model.decoders, target_params=jax.tree.map(lambda x: -x, model.decoders.target_params))
    theirs = dataclasses.replace(model, decoders=other)
    assert same_lists(model, users, 5, exchanged)  # decoded again in float64, where both agree
    assert not same_lists(theirs, users, 5, ours.replace(score=ours.score + 1e-3))


def test_without_constraint_other_tokens_come_out(model, users):
    ids = model.hugging_face(users, 5, trie=False).tokens
    assert (ids < CATALOG.level_offsets).any() or (ids >= CATALOG.level_offsets + 9).any()
