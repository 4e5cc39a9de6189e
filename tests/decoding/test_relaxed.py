"""The law of relaxed decoding, by enumeration, for drafts good and bad; and that the reference's rule fails it."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding import relaxed
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.beams import Beams
from atspeed_jax.decoding.children import Children, best_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.items.trie import build_trie
from cases import DRAFTS, STEP, Shape, items_of, make_batch
from laws import ROUNDS, crowd, p_value, smooth
from table_model import COUNTED, table_logits

LEVELS_2 = Shape((4, 3), 2, (3,), 1, "vocab", batch=4)
LEVELS_3 = Shape((3, 2, 2), 2, (2, 4), 2, "trie", batch=4)
ONE_BY_ONE = Shape((3, 2, 2), 3, (3, 5), 1, "vocab", batch=4)


def a_batch(shape, draft, trie="full", seed=1):
    return smooth(make_batch(shape, np.random.default_rng(seed), trie=trie, table="smooth", draft=draft))


def law_of(batch, row=1):
    shape = batch.shape
    prompt = batch.sequences()[row]
    return oracle.sampler_law(batch.ids, prompt, table_logits(batch.table), shape.beams, shape.norm)


def draws_of(decode, batch, row=1):
    draws, calls = collections.Counter(), collections.Counter()
    for seed in range(ROUNDS):
        result = decode(STEP, crowd(batch, row, seed))
        draws.update(frozenset(items_of(result, user)) for user in range(len(result.valid)))
        calls.update(result.target_calls.tolist())
    return draws, calls


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("shape", [LEVELS_2, LEVELS_3, pytest.param(ONE_BY_ONE, marks=pytest.mark.slow)], ids=str)
def test_lists_have_the_law_of_the_targets_own_sampler(shape, draft):
    batch = a_batch(shape, draft)
    draws, calls = draws_of(lambda *a: batch.speculative(*a, mode="relaxed"), batch)
    assert p_value(draws, law_of(batch)) > 0.001
    if shape.gamma > 1 or len(shape.sizes) == 2:
        assert calls[1] > 100  # the draft's draws were accepted


def test_the_targets_own_sampler_has_its_law():
    batch = a_batch(LEVELS_3, "near")
    draws, _ = draws_of(lambda *a: batch.plain(*a, mode="relaxed"), batch)
    assert p_value(draws, law_of(batch)) > 0.001


@pytest.mark.parametrize("draft", ["perfect", "random"])
def test_the_rule_of_the_reference_has_another_law(draft):
    batch = a_batch(LEVELS_2, draft)
    draws, _ = draws_of(lambda *a: batch.speculative(*a, mode="relaxed_reference"), batch)
    assert p_value(draws, law_of(batch)) < 1e-6


def test_fewer_items_than_beams_are_all_found():
    """K beyond the catalog: every item, every time, whatever the draft."""
    batch = a_batch(Shape((3, 2, 2), 12, (3, 6), 2, "trie", batch=4), "random", trie="some")
    keys = user_keys(0, np.arange(4))
    result = batch.speculative(STEP, batch.prompt.replace(keys=keys), mode="relaxed")
    for row in range(4):
        assert sorted(items_of(result, row)) == batch.ids[:12]


@pytest.mark.parametrize("mode", ["relaxed", pytest.param("relaxed_reference", marks=pytest.mark.slow)])
def test_reported_calls_are_executed_calls_and_lists_are_sorted(mode):
    rng = np.random.default_rng(4)
    shape = Shape((5, 4, 3), 4, (4, 6), 2, "vocab")
    distinct = 0
    for number in range(8):
        batch = make_batch(shape, rng, trie="some", table="smooth", draft="near")
        COUNTED.calls.forget()
        keys = user_keys(number, np.arange(shape.batch))
        result = batch.speculative(prompt=batch.prompt.replace(keys=keys), mode=mode)
        total, written = COUNTED.calls.take()
        assert result.target_calls.tolist() == written
        assert result.rounds == total
        for row in range(shape.batch):
            items = items_of(result, row)
            assert set(items) <= set(batch.ids)
            assert len(set(items)) == len(items)
            assert (np.diff(result.score[row, : len(items)]) <= 0).all()
            expected = dict(oracle.every_item(batch.ids, batch.sequences()[row], table_logits(batch.table), shape.norm))
            for item, score in zip(items, result.score[row], strict=False):
                assert score == pytest.approx(expected[item], abs=1e-4)
            if mode == "relaxed":
                assert len(items) == min(shape.beams, len(batch.ids))
            distinct += result.target_calls[row] > 1
    assert distinct > 4


def one_level(p, q, width, count, *, reference=False):
    """`count` of the root's children, drawn for 40,000 users from p with `width` draws of q: nodes [users, count]."""
    users = 40_000
    tokens = jnp.zeros((users, 1, 1), jnp.int32)
    root = Beams(
        tokens, tokens, jnp.zeros((users, 1)), tokens[..., 0], jnp.ones((users, 1), bool), jnp.zeros((users, 1))
    )
    trie = build_trie(np.arange(len(p))[:, None])
    edge = jnp.broadcast_to(jnp.arange(len(p)), (users, 1, len(p)))
    target, draft = (
        Children(root, edge, edge, jnp.broadcast_to(jnp.log(x), edge.shape), jnp.ones(edge.shape, bool), level=0)
        for x in (p, q)
    )

    @jax.jit
    def run(keys):
        gumbel = jax.random.gumbel(jax.random.key(9), edge.shape)
        drafted = best_children(trie, draft.replace(perturbed=draft.log_prob + gumbel), width)
        rule = relaxed.reference_rule if reference else relaxed.exact_rule
        return relaxed.accept_draws(target, draft, drafted, trie=trie, count=count, keys=keys, rule=rule).node

    return np.asarray(run(user_keys(5, np.arange(users))))


def test_places_left_after_a_rejection_are_filled_by_the_law():
    """Three of six, two draws: the first place is filled from what a rejection leaves, with noise of its own."""
    p, q = np.array([0.5, 0.3, 0.1, 0.05, 0.03, 0.02]), np.array([0.45, 0.05, 0.05, 0.3, 0.1, 0.05])
    law = collections.Counter()
    for drawn, chance in oracle.draws_without_replacement(dict(enumerate(p)), 3).items():
        law[frozenset(drawn)] += chance
    assert p_value(collections.Counter(map(frozenset, one_level(p, q, 2, 3).tolist())), law) > 0.001


def test_one_level_as_the_paper_counts_it():
    """ALGORITHM section 6: inclusion of four children with p = q: ours that of the sampler, the reference's far off."""
    p = np.array([0.5, 0.25, 0.15, 0.1])
    exact, reference = (
        np.bincount(nodes.reshape(-1), minlength=4) / len(nodes)
        for nodes in (one_level(p, p, 3, 2, reference=which) for which in (False, True))
    )
    expected = np.zeros(4)
    for drawn, chance in oracle.draws_without_replacement(dict(enumerate(p)), 2).items():
        expected[list(drawn)] += chance
    np.testing.assert_allclose(exact, expected, atol=0.01)
    assert np.abs(reference - expected).max() > 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "greedy"}, "mode='greedy': expected one of strict, stochastic, relaxed, coupled, relaxed_reference"),
        ({"temperature": 2.0}, "temperature=2.0 with mode='strict': expected more than 0, and 1 in strict mode"),
        ({"mode": "stochastic"}, "mode='stochastic' with score_norm='vocab'"),
        ({"mode": "relaxed", "tolerance": 0.1}, "tolerance=0.1 with mode='relaxed'"),
    ],
)
def test_modes_that_cannot_be(settings, message):
    with pytest.raises(DecodeError, match=message):
        SearchConfig((4,), 1, "vocab", beams=4, **settings)


def test_a_mode_that_draws_needs_keys():
    batch = a_batch(LEVELS_2, "near")
    for decode in (batch.speculative, batch.plain):
        with pytest.raises(DecodeError, match=r"mode='relaxed' draws at random: give Prompt.keys"):
            decode(STEP, mode="relaxed")
