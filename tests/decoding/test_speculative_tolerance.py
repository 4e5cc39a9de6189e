"""Tolerance: what is given up, and that nothing is where a level was not drafted or the list would lose a place."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.filters import NO_ID, FilteredTrie
from atspeed_jax.items.levels import level_trie
from atspeed_jax.items.trie import build_trie
from cases import SHAPES, STEP, Shape, batches
from properties import ROUNDING, check_user
from table_model import BigramStep, bigram_logits, table_logits

BIGRAM = BigramStep()
ONE_LEVEL = Shape((4, 3, 3, 2), 4, (3, 6, 6), 1, "trie")  # later rounds meet levels that were not drafted


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[7], ONE_LEVEL], ids=str)
def test_gives_up_what_the_oracle_gives_up(shape):
    """Lists, calls and the share given up, on tables whose scores differ by little, so that much would be lost."""
    tolerance, compared, gave_up = 0.23, 0, 0
    for batch in batches(shape, 48, seed=6):
        if batch.exact:
            continue
        smooth = dataclasses.replace(batch, table=batch.table / 2)
        result = smooth.speculative(STEP, tolerance=tolerance)
        for row, prompt in enumerate(batch.sequences()):
            expected = oracle.tolerant_search(
                batch.ids, prompt, table_logits(smooth.table), batch.propose(), shape.beams, shape.widths, shape.gamma,
                shape.norm, tolerance,
            )  # fmt: skip
            if expected.margin < ROUNDING:
                continue
            check_user(batch, result, row, expected.items)
            assert result.target_calls[row] == expected.calls
            assert result.given_up[row] == pytest.approx(expected.given_up, abs=1e-5)
            compared, gave_up = compared + 1, gave_up + (expected.given_up > 1e-3)
    assert compared >= 60
    assert gave_up >= 10


def bigram(size, rows):
    """[size, size] logits from {token before: {token: probability}}; all other children are alike."""
    table = np.zeros((size, size), np.float32)
    for before, after in rows.items():
        for token, share in after.items():
            table[before, token] = np.log(share)
    return table


def decode(trie, target, draft, beams, widths, norm, tolerance, users=1):
    """One level drafted per round, for users with BOS alone."""
    prompt = Prompt(jnp.ones((users, 1), jnp.int32), jnp.ones((users, 1), bool))
    config = SearchConfig(widths, 1, norm, beams=beams, tolerance=tolerance)
    return speculative_beam_search(BIGRAM, target, ModelDrafter(BIGRAM), draft, trie=trie, prompt=prompt, config=config)


@pytest.mark.parametrize(("widths", "calls"), [((3, 2, 2), 2), ((2, 2, 2), 3)])
def test_a_level_that_nobody_drafted_is_not_passed(widths, calls):
    """Round 2 drafts level 2. At level 3 (2, 5, 8) is finished, and (3, 6, 10) would be given up undrafted."""
    ids = [(2, 5, 8, 11), (2, 5, 9, 11), (3, 6, 10, 11), (3, 6, 10, 12), (4, 7, 8, 11), (4, 7, 8, 12)]
    five = {5: {8: 0.99, 9: 0.01}}
    target = bigram(13, {1: {2: 0.70, 3: 0.29, 4: 0.01}} | five)
    draft = bigram(13, {1: {2: 0.01, 3: 0.39, 4: 0.60}} | five)
    result = decode(build_trie(np.array(ids)), target, draft, 2, widths, "trie", 0.35)
    best = oracle.beam_search(ids, (1,), bigram_logits(target), 2, "trie")
    assert result.valid.all()
    assert list(map(tuple, result.tokens[0].tolist())) == [item for item, _ in best.items]
    assert [item for item, _ in best.items] == [(2, 5, 8, 11), (3, 6, 10, 11)]
    assert result.given_up.tolist() == [0]
    assert result.target_calls.tolist() == [calls]


def test_beams_are_not_given_up_where_the_others_cannot_fill_the_list():
    """Code 3 has 6 % and was not drafted. Without it three items are left, but two for a user who has (2, 8)."""
    ids = np.array([(2, 7), (2, 8), (3, 7), (3, 8), (3, 9), (4, 7), (5, 7), (5, 8), (6, 7), (6, 8)])
    trie = FilteredTrie(build_trie(ids), jnp.array([[1], [NO_ID]]), allow=False)
    target = bigram(10, {1: {2: 0.900, 3: 0.060, 4: 0.035, 5: 0.004, 6: 0.001}})
    draft = bigram(10, {1: {2: 0.30, 3: 0.01, 4: 0.24, 5: 0.25, 6: 0.20}})
    result = decode(trie, target, draft, 3, (2,), "trie", 0.1, users=2)
    assert result.valid.all()
    assert result.tokens.tolist() == [[[2, 7], [4, 7], [3, 7]], [[2, 7], [2, 8], [4, 7]]]
    assert result.target_calls.tolist() == [2, 1]
    np.testing.assert_allclose(result.given_up, [0, 0.06 / 0.995], atol=1e-6)


def test_one_prefix_of_the_per_level_constraint_can_fill_the_list():
    trie = level_trie(build_trie(np.array([(2, 5), (3, 6), (4, 7)])))
    target = bigram(8, {1: {2: 0.90, 3: 0.06, 4: 0.04}})
    result = decode(trie, target, target, 3, (1,), "trie", 0.2)
    assert result.tokens[0].tolist() == [[2, 5], [2, 6], [2, 7]]
    assert result.target_calls.tolist() == [1]
    np.testing.assert_allclose(result.given_up, [0.1], atol=1e-6)


@pytest.mark.parametrize("better", [20.0, 60.0, 1000.0])
def test_a_beam_given_up_is_told_however_improbable_it_is(better):
    """The list is another one then, and 1 minus its share is 1 in float32. Code 3 is worse, its items are better."""
    ids = np.array([(2, 4), (2, 5), (3, 4), (3, 5)])
    logits = np.full((6, 6), -9000.0, np.float32)
    logits[1, [2, 3]], logits[2, [0, 4, 5]], logits[3, [4, 5]] = (0.0, -better), (0.0, -3 * better, -3 * better), 0.0
    result = decode(build_trie(ids), logits, logits, 2, (1,), "vocab", 0.01)
    assert result.tokens[0].tolist() == [[2, 4], [2, 5]]
    assert result.target_calls.tolist() == [1]
    assert 0 < result.given_up[0] < 1e-8
