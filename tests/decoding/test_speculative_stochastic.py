"""Stochastic mode: the same draw as stochastic beam search, path by path; and its law."""

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.noise import Purpose, user_keys
from atspeed_jax.items.trie import build_trie
from cases import DRAFTS, STEP, Shape, batches, items_of, make_batch
from laws import ROUNDS, crowd, p_value, smooth
from properties import ROUNDING
from table_model import COUNTED, table_logits

SHAPES = (
    Shape((5, 3, 3, 3), 4, (4, 6, 8), 3, "trie"),
    Shape((4, 3, 3), 3, (4, 5), 1, "trie"),
    Shape((5, 4), 3, (3,), 3, "trie", "popularity"),
)
TOY = Shape((3, 2, 2), 2, (2, 3), 2, "trie", batch=4)


def test_a_draft_that_is_the_target_never_misses():
    """With no more room than beams, and siblings that need no drafting: both see one noise, conditioned alike, at one
    temperature."""
    shape = Shape((5, 3, 3, 3), 4, (4, 4, 4), 3, "trie")
    rng, finished = np.random.default_rng(3), 0
    for number in range(24):
        batch = make_batch(shape, rng, trie="some", table="smooth", draft="perfect")
        prompt = batch.prompt.replace(keys=user_keys(number, np.arange(shape.batch)))
        found = batch.speculative(STEP, prompt, mode="stochastic", temperature=0.5)
        assert found.target_calls.tolist() == [1] * shape.batch
        counts = collections.Counter(item[:2] for item in batch.ids)
        finished += sum(count == 1 for count in counts.values())
    assert finished


def noise_of(key):
    """prefix -> Gumbel noise, by single keys."""

    @functools.cache
    def value(prefix):
        at = jax.random.fold_in(key, int(Purpose.BEAM))
        for token in prefix:
            at = jax.random.fold_in(at, token)
        return float(jax.random.gumbel(at))

    return value


@pytest.mark.parametrize("shape", [pytest.param(SHAPES[0], marks=pytest.mark.slow), *SHAPES[1:]], ids=str)
def test_equals_stochastic_beam_search_and_the_oracle(shape):
    compared = more_than_one = 0
    for number, batch in enumerate(batches(shape, 12, seed=21)):
        keys = user_keys(number, np.arange(shape.batch))
        prompt = batch.prompt.replace(keys=keys)
        COUNTED.calls.forget()
        found = batch.speculative(prompt=prompt, mode="stochastic")
        total, written = COUNTED.calls.take()
        assert found.target_calls.tolist() == written
        assert found.rounds == total
        plain = batch.plain(STEP, prompt, mode="stochastic")
        for row, sequence in enumerate(batch.sequences()):
            expected = oracle.stochastic_search(
                batch.ids, sequence, table_logits(batch.table), shape.beams, noise_of(keys[row])
            )
            if expected.margin < ROUNDING:
                continue
            for result in (plain, found):
                count = len(expected.items)
                assert items_of(result, row) == [item for item, _ in expected.items]
                np.testing.assert_allclose(result.score[row, :count], [s for _, s in expected.items], atol=ROUNDING)
                np.testing.assert_allclose(
                    result.perturbed[row, :count], [g for _, g in expected.levels[-1]], atol=20 * ROUNDING
                )
            compared += 1
            more_than_one += found.target_calls[row] > 1
    assert compared >= 60
    assert more_than_one >= 10


@pytest.mark.parametrize("draft", DRAFTS)
def test_lists_are_draws_without_replacement_from_the_model(draft):
    """In order, as sequences."""
    batch = smooth(make_batch(TOY, np.random.default_rng(3), trie="full", table="smooth", draft=draft))
    law = oracle.items_law(batch.ids, batch.sequences()[1], table_logits(batch.table), TOY.beams)
    draws = collections.Counter()
    for seed in range(ROUNDS):
        result = batch.speculative(STEP, crowd(batch, 1, seed), mode="stochastic")
        draws.update(tuple(items_of(result, user)) for user in range(len(result.valid)))
    assert p_value(draws, law) > 0.001


def test_temperature_is_that_of_the_logits():
    batch = make_batch(TOY, np.random.default_rng(5), trie="full", table="smooth", draft="near")
    prompt = crowd(batch, 1, seed=0)  # the shape of the test above, compiled already
    hot = batch.speculative(STEP, prompt, mode="stochastic", temperature=2.5)
    divided = dataclasses.replace(batch, table=batch.table / np.float32(2.5), draft=batch.draft / np.float32(2.5))
    cool = divided.speculative(STEP, prompt, mode="stochastic")
    np.testing.assert_array_equal(hot.ids, cool.ids)
    np.testing.assert_allclose(hot.score, cool.score, atol=1e-5)


def test_a_user_drawn_again_gets_the_same_and_another_seed_another():
    batch = make_batch(SHAPES[1], np.random.default_rng(6), trie="full", table="smooth", draft="near")
    users = np.arange(8)
    first, again, other = (
        batch.speculative(prompt=batch.prompt.replace(keys=user_keys(seed, users)), mode="stochastic")
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.ids, again.ids)
    assert (first.ids != other.ids).any()
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    prompt = batch.prompt.replace(keys=user_keys(1, users))
    moved = batch.speculative(prompt=jax.tree.map(lambda x: x[order], prompt), mode="stochastic")
    np.testing.assert_array_equal(moved.ids, first.ids[order])


def test_items_that_are_gone_leave_the_noise_of_the_others_alone():
    """Draws without replacement from what is left, with the noise each item had."""
    shape = Shape((9,), 9, (), 1, "trie")
    batch = make_batch(shape, np.random.default_rng(7), trie="full", table="smooth", draft="near")
    prompt = batch.prompt.replace(keys=user_keys(1, np.arange(shape.batch)))
    every = batch.plain(STEP, prompt, mode="stochastic")
    fewer = np.delete(np.array(batch.ids), [2, 5], axis=0)
    left = dataclasses.replace(batch, trie=build_trie(fewer, shape.capacity)).plain(STEP, prompt, mode="stochastic")
    for row in range(shape.batch):
        order = [item for item in items_of(every, row) if list(item) in fewer.tolist()]
        assert items_of(left, row) == order
