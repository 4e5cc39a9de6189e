"""Logits that are not finite are told with user and level where a beam needs them, by both decoders, and nowhere else.

A prefix that is finished needs none (`beams.finished`).
"""

import collections
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.base import DecodeError, Prompt, check_finite
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.trie import build_trie
from cases import SHAPES, make_batch
from table_model import BigramStep, table_logits

# K beyond the catalog: the target reads every prefix that is not finished, whatever is drawn.
EVERY = next(shape for shape in SHAPES if shape.beams == 40)
CASES = [
    (SHAPES[0], "strict"),
    (SHAPES[1], "strict"),
    (next(shape for shape in SHAPES if shape.sizes == (6, 3, 3)), "strict"),
    (EVERY, "strict"),
    *(
        pytest.param(EVERY, mode, marks=pytest.mark.slow)
        for mode in ("relaxed", "stochastic", "coupled", "relaxed_reference")
    ),
]
VALUES = (np.nan, np.inf, -np.inf)
BIGRAM = BigramStep()


def poisons(batch, rng):
    """Marks [ROWS, V] of entries to be spoilt: all, what a user reads at each depth, a token everywhere, a few."""
    rows, tokens = batch.table.shape
    row_of = table_logits(np.arange(rows))
    yield np.ones((rows, tokens), bool)
    for depth in range(len(batch.shape.sizes)):
        item, prompt = (options[rng.integers(len(options))] for options in (batch.ids, batch.sequences()))
        yield np.broadcast_to(np.arange(rows)[:, None] == row_of((*prompt, *item[:depth])), (rows, tokens))
    yield np.broadcast_to(np.arange(tokens) == batch.ids[-1][-1], (rows, tokens))
    yield rng.random((rows, tokens)) < 0.01


def first_fault(batch, marks, value, prompt):
    """(level of the first fault or 0, whether logits of a finished beam were spoilt), by the oracle's beams."""
    shape, trie, logits_of = batch.shape, oracle.dict_trie(batch.ids), table_logits(batch.table)
    found = oracle.beam_search(batch.ids, prompt, logits_of, shape.beams, shape.norm)
    marked, spared = table_logits(marks), False
    for level, prefixes in enumerate([[()], *([p for p, _ in level] for level in found.levels[:-1])], start=1):
        for prefix in prefixes:
            # Over the vocabulary NaN and infinity spoil every child; -inf spoils the token alone.
            anywhere = shape.norm == "vocab" and value != -np.inf
            row = marked((*prompt, *prefix))
            bad = row.any() if anywhere else row[trie[prefix]].any()
            if bad and not oracle.finished(trie, prefix, shape.norm):
                return level, spared
            spared |= bool(bad)
    return 0, spared


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("shape", "mode"), CASES, ids=str)
def test_user_and_level_of_the_first_fault(shape, mode, value):
    rng, seen = np.random.default_rng(7), collections.Counter()
    table = "smooth" if mode != "strict" else "ladder"
    for number, trie in enumerate(("full", "some", "one_leaf")):
        batch = make_batch(shape, rng, trie=trie, table=table, draft="random")
        keys = None if mode == "strict" else user_keys(number, np.arange(shape.batch))
        prompt = batch.prompt.replace(keys=keys)
        for marks in poisons(batch, rng):
            told = [first_fault(batch, marks, value, sequence) for sequence in batch.sequences()]
            expected = [level for level, _ in told]
            seen.update(expected)
            seen["spared"] += sum(spared and not level for level, spared in told)
            spoilt = dataclasses.replace(batch, table=np.where(marks, np.float32(value), batch.table))
            plain = spoilt.plain(prompt=prompt, mode=mode.removesuffix("_reference"))
            found = spoilt.speculative(prompt=prompt, mode=mode)
            assert plain.faulty.tolist() == expected
            if mode == "relaxed_reference":  # may leave places empty
                assert [level == 1 for level in found.faulty] == [level == 1 for level in expected]
            else:
                assert found.faulty.tolist() == expected
            check_message(plain.faulty, expected)
    assert {0, 1, 2, 3} <= set(seen)
    assert shape.norm == "vocab" or seen["spared"] > 0


def check_message(faulty, expected):
    users = np.arange(len(expected)) + 100
    if not any(expected):
        check_finite(faulty, users)
        return
    first = next(user for user, level in enumerate(expected) if level)
    with pytest.raises(DecodeError, match=f"user {100 + first}: scores of level {expected[first]} are not"):
        check_finite(faulty, users)


def both(ids, table, beams, widths):
    """Results of both decoders under trie norm for a bigram table, which is its own draft, and BOS alone."""
    trie, prompt = build_trie(np.array(ids)), Prompt(jnp.array([[1]]), jnp.array([[True]]))
    config = SearchConfig(widths, len(widths), "trie", beams=beams)
    yield beam_search(BIGRAM, table, trie, prompt, beams=beams, score_norm="trie")
    yield speculative_beam_search(BIGRAM, table, ModelDrafter(BIGRAM), table, trie=trie, prompt=prompt, config=config)


def test_logits_of_finished_prefixes_are_never_looked_at():
    """Token 6 follows (2, 4) alone, and (2) is finished."""
    table = np.zeros((9, 9), np.float32)
    table[:, 6] = np.nan
    for result in both([(2, 4, 6), (3, 5, 7), (3, 5, 8)], table, 3, (2, 2)):
        assert result.faulty.tolist() == [0]
        assert result.valid.all()
        assert result.tokens[0].tolist() == [[2, 4, 6], [3, 5, 7], [3, 5, 8]]
        np.testing.assert_allclose(np.exp(result.score[0]), [0.5, 0.25, 0.25], atol=1e-6)


def test_a_catalog_of_one_item_needs_no_logits():
    for value in VALUES:
        for result in both([(2, 4, 6)], np.full((9, 9), value, np.float32), 3, (2, 2)):
            assert result.faulty.tolist() == [0]
            assert result.valid.tolist() == [[True, False, False]]
            assert result.tokens[0, 0].tolist() == [2, 4, 6]
            assert result.score[0, 0] == 0


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_a_drafts_own_faults_are_nobodys(norm, value):
    """Any draft: a spoilt one costs calls, and is told of no user."""
    shape = SHAPES[0] if norm == "vocab" else SHAPES[1]
    batch = make_batch(shape, np.random.default_rng(5), trie="some", table="ladder", draft="near")
    spoilt = dataclasses.replace(batch, draft=np.full_like(batch.draft, value))
    plain, found = batch.plain(), spoilt.speculative()
    assert not found.faulty.any()
    np.testing.assert_array_equal(found.ids, plain.ids)
    np.testing.assert_array_equal(found.score, plain.score)
