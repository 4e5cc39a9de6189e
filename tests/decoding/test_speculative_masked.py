"""Logits of finfo.min, as the masked heads of real models have them: a finite score of any size is a place of the list.

Scores of that size are rounded by more than all others together, so lists are compared with each other, not with the
oracle's.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.beams import root_beams
from atspeed_jax.decoding.children import not_finite, score_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.trie import build_trie
from cases import SHAPES, Shape, make_batch
from table_model import BigramStep

LEAST = np.finfo(np.float32).min
BIGRAM = BigramStep()
# K beyond the catalog.
EVERY = next(shape for shape in SHAPES if shape.beams == 40)
MODES = (
    ("strict", 1.0),
    ("stochastic", 0.5),
    ("relaxed", 1.0),
    pytest.param("coupled", 0.5, marks=pytest.mark.slow),
    pytest.param("relaxed_reference", 1.0, marks=pytest.mark.slow),
)


def masked(table, rng, share):
    """The table with the logits of a share of its entries masked, PAD's never."""
    hidden = rng.random(table.shape) < share
    hidden[:, 0] = False
    return np.where(hidden, LEAST, table)


def check_list(result, row, expected: int) -> None:
    valid = result.valid[row]
    assert valid.tolist() == [True] * expected + [False] * (len(valid) - expected)
    assert len(set(result.ids[row][valid].tolist())) == expected
    key = result.score if result.perturbed is None else result.perturbed
    assert np.isfinite(result.score[row]).all()
    assert (np.diff(key[row][valid]) <= 0).all()


@pytest.mark.parametrize(("mode", "temperature"), MODES)
def test_every_item_is_found_in_every_mode(mode, temperature):
    rng = np.random.default_rng(1)
    for number, share in enumerate((0.3, 0.7, 1.0)):
        batch = make_batch(EVERY, rng, trie=("full", "some", "full")[number], table="smooth", draft="near")
        batch = dataclasses.replace(batch, table=masked(batch.table, rng, share), draft=masked(batch.draft, rng, share))
        prompt = batch.prompt.replace(keys=user_keys(number, np.arange(EVERY.batch)))
        plain = batch.plain(prompt=prompt, mode=mode.removesuffix("_reference"), temperature=temperature)
        found = batch.speculative(prompt=prompt, mode=mode, temperature=temperature)
        assert not plain.faulty.any()
        assert not found.faulty.any()
        for row in range(EVERY.batch):
            check_list(plain, row, len(batch.ids))
            if mode != "relaxed_reference":  # may leave places empty
                check_list(found, row, len(batch.ids))
        if mode in ("strict", "stochastic", "coupled"):
            np.testing.assert_array_equal(found.ids, plain.ids)


@pytest.mark.parametrize("shape", [SHAPES[0], pytest.param(SHAPES[1], marks=pytest.mark.slow), SHAPES[11]], ids=str)
def test_both_decoders_find_the_same_where_beams_are_few(shape):
    rng = np.random.default_rng(2)
    for trie, share in (("full", 0.3), ("some", 0.7), ("full", 1.0)):
        batch = make_batch(shape, rng, trie=trie, table="ladder", draft="near")
        batch = dataclasses.replace(batch, table=masked(batch.table, rng, share), draft=masked(batch.draft, rng, share))
        plain, found = batch.plain(), batch.speculative()
        assert not plain.faulty.any()
        assert not found.faulty.any()
        np.testing.assert_array_equal(found.ids, plain.ids)
        np.testing.assert_array_equal(found.score, plain.score)
        for row in range(shape.batch):
            check_list(plain, row, min(shape.beams, len(batch.ids)))


def test_scores_of_eight_masked_levels_are_finite():
    shape, rng = Shape((2,) * 8, 3, (2, 3, 3, 3, 3, 3, 3), 7, "vocab", batch=4), np.random.default_rng(8)
    batch = make_batch(shape, rng, trie="full", table="smooth", draft="near")
    batch = dataclasses.replace(batch, table=masked(batch.table, rng, 1.0))
    for result in (batch.plain(), batch.speculative()):
        assert not result.faulty.any()
        assert (result.score == LEAST).all()
        for row in range(4):
            check_list(result, row, 3)


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_masked_items_come_last(norm):
    """Two of six items are not masked; a draft that masks these leaves the list as it is."""
    ids = [(first, second) for first in (2, 3) for second in (4, 5, 6)]
    table = np.zeros((7, 7), np.float32)
    table[1, 3] = table[2, 5] = LEAST
    draft = np.where(table == 0, LEAST, 0).astype(np.float32)
    trie, prompt = build_trie(np.array(ids)), Prompt(jnp.array([[1]]), jnp.array([[True]]))
    plain = beam_search(BIGRAM, table, trie, prompt, beams=8, score_norm=norm)
    config = SearchConfig((2,), 1, norm, beams=8)
    found = speculative_beam_search(BIGRAM, table, ModelDrafter(BIGRAM), draft, trie=trie, prompt=prompt, config=config)
    for result in (plain, found):
        assert result.faulty.tolist() == [0]
        assert result.valid[0].tolist() == [True] * 6 + [False] * 2
        items = list(map(tuple, result.tokens[0, :6].tolist()))
        assert items[:2] == [(2, 4), (2, 6)]
        assert sorted(items[2:]) == [(2, 5), (3, 4), (3, 5), (3, 6)]
        assert (result.score[0, 2:6] == LEAST).all()
        assert result.score[0, 1] > -10


@pytest.mark.parametrize("mode", ["relaxed", "relaxed_reference"])
def test_no_draw_takes_a_masked_item_while_others_are_left(mode):
    """Four of eight items are masked for the target, four others for the draft: 400 users draw four."""
    ids = np.array([(first, second) for first in (2, 3, 4, 5) for second in (6, 7)])
    table, draft = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    table[1, 2:4], draft[1, 3:5] = LEAST, LEAST
    users = 400
    ones = jnp.ones((users, 1), jnp.int32)
    prompt = Prompt(ones, ones == 1, user_keys(0, np.arange(users)))
    config = SearchConfig((2,), 1, "vocab", beams=2, mode=mode)
    found = speculative_beam_search(
        BIGRAM, table, ModelDrafter(BIGRAM), draft, trie=build_trie(ids), prompt=prompt, config=config
    )
    assert found.valid.all()
    assert (found.tokens[..., 0] >= 4).all()
    assert not found.faulty.any()


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_children_that_are_masked_alike_share_the_probability(norm):
    """Whatever their logits are, and whatever the temperature; only -inf, NaN and infinity are no numbers."""
    trie = build_trie(np.array([(0,), (1,), (2,), (3,)]))
    root = root_beams(Prompt(jnp.zeros((3, 1), jnp.int32), jnp.ones((3, 1), bool)), 1)
    largest = np.finfo(np.float32).max
    rows = [[LEAST] * 4, [largest] * 4, [LEAST, LEAST, largest, largest]]
    for temperature in (0.1, 1.0, 7.0):
        children = score_children(
            trie, 0, root, jnp.array(rows, jnp.float32)[:, None], norm=norm, temperature=temperature
        )
        assert not not_finite(children).any()
        np.testing.assert_allclose(children.log_prob[:2, 0], np.log(0.25), rtol=1e-6)
        np.testing.assert_allclose(children.log_prob[2, 0, 2:], np.log(0.5), rtol=1e-6)
        assert (children.log_prob[2, 0, :2] <= LEAST / 10).all()
    for value in (-np.inf, np.inf, np.nan):
        rows = jnp.array([[value, 0, 0, 0], [0, 0, 0, value], [0, 0, 0, 0]], jnp.float32)[:, None]
        assert not_finite(score_children(trie, 0, root, rows, norm=norm)).tolist() == [True, True, False]


def test_half_precision_logits_are_scored_in_single_precision():
    trie = build_trie(np.array([(0,), (1,)]))
    root = root_beams(Prompt(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)), 1)
    for dtype in (jnp.bfloat16, jnp.float16):
        logits = jnp.array([[[float(jnp.finfo(dtype).min), 0.0]]], dtype)
        children = score_children(trie, 0, root, logits, norm="vocab")
        assert children.log_prob.dtype == jnp.float32
        assert not not_finite(children).any()
        assert children.log_prob[0, 0, 1] == 0
        assert children.log_prob[0, 0, 0] == jnp.finfo(dtype).min
