import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.beams import (
    LOWEST,
)
from atspeed_jax.decoding.children import best_children, not_finite, only_children, score_children
from two_levels import IDS, LEVEL_TWO, TRIE, level_two


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_children_and_their_log_probabilities(norm):
    beams = level_two([0, 3, 4], [0.0, 0.0, 0.0], [True, True, False])
    logits = np.random.default_rng(0).normal(size=(2, 3, 10)).astype(np.float32)
    children = score_children(TRIE, 2, beams, jnp.asarray(logits), norm=norm)
    assert children.edge.shape == (2, 3, 4)
    for user, place in itertools.product(range(2), range(2)):
        prefix = LEVEL_TWO[beams.node[user, place]]
        want = [row for row in range(len(IDS)) if tuple(IDS[row, :2]) == prefix]
        exists = np.asarray(children.exists[user, place])
        assert np.asarray(children.edge[user, place])[exists].tolist() == want
        tokens = IDS[want, 2]
        assert np.asarray(children.token[user, place])[exists].tolist() == tokens.tolist()
        row = np.exp(np.float64(logits[user, place]))
        total = row.sum() if norm == "vocab" else row[tokens].sum()
        np.testing.assert_allclose(children.log_prob[user, place][exists], np.log(row[tokens] / total), atol=1e-5)
    assert not children.exists[:, 2].any()  # an invalid node has no children
    assert (np.asarray(children.log_prob)[~np.asarray(children.exists)] == LOWEST).all()


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_a_token_that_the_vocabulary_lacks_is_no_finite_score(norm):
    beams = level_two([0, 3], [0.0, 0.0])
    enough = score_children(TRIE, 2, beams, jnp.zeros((2, 2, 10)), norm=norm)
    assert not not_finite(enough).any()
    assert not_finite(score_children(TRIE, 2, beams, jnp.zeros((2, 2, 8)), norm=norm)).all()  # of 7, 8, 9 one is left


def test_logits_may_begin_at_a_later_token():
    beams = level_two([0, 3], [0.0, 0.0])
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 10)), jnp.float32)
    whole = score_children(TRIE, 2, beams, logits, norm="trie")
    cut = score_children(TRIE, 2, beams, logits[..., 7:], norm="trie", first_token=7)
    np.testing.assert_array_equal(cut.log_prob, whole.log_prob)
    np.testing.assert_array_equal(cut.token, whole.token)
    lacking = score_children(TRIE, 2, beams, logits[..., 9:], norm="trie", first_token=9)  # of 7, 8, 9 one is left
    assert not_finite(lacking).all()


def test_best_keeps_trie_order_puts_invalid_last_and_breaks_ties_by_order():
    """Against sorting in Python, over scores of few values."""
    rng = np.random.default_rng(1)
    best = jax.jit(best_children, static_argnums=2)
    children_of = jax.jit(score_children, static_argnums=1, static_argnames="norm")
    for _ in range(20):
        beams = level_two([0, 1, 2, 4], -rng.integers(0, 3, 4).astype(float), rng.random(4) < 0.8)
        logits = -rng.integers(0, 3, (2, 4, 10)).astype(np.float32)
        logits[..., 0] = 64  # alone in the log-sum-exp, so that scores are exact
        children = children_of(TRIE, 2, beams, jnp.asarray(logits), norm="vocab")
        for count in (1, 4, 20):  # up to more than there are places
            kept = jax.tree.map(np.asarray, best(TRIE, children, count))
            assert kept.count == count
            for user in range(2):
                candidates = [
                    (float(beams.score[user, n]) + float(logits[user, n, IDS[row, 2]]) - 64, row)
                    for n in range(4)
                    if beams.valid[user, n]
                    for row in range(len(IDS))
                    if tuple(IDS[row, :2]) == LEVEL_TWO[beams.node[user, n]]
                ]
                want = sorted(sorted(candidates, key=lambda c: (-c[0], c[1]))[:count], key=lambda c: c[1])
                assert kept.valid[user].tolist() == [True] * len(want) + [False] * (count - len(want))
                assert kept.node[user, : len(want)].tolist() == [row for _, row in want]
                assert kept.score[user, : len(want)].tolist() == [score for score, _ in want]
                np.testing.assert_array_equal(kept.tokens[user, : len(want)], IDS[[row for _, row in want]])
                for place, (_, row) in enumerate(want):  # the path is the parent's
                    parent = LEVEL_TWO.index(tuple(IDS[row, :2].tolist()))
                    assert kept.path[user, place].tolist() == [2, 3 + parent, 10 + parent]


def test_finished_beams_have_one_child_of_probability_one():
    place = next(n for n, prefix in enumerate(LEVEL_TWO) if sum(tuple(row[:2]) == prefix for row in IDS.tolist()) == 1)
    row = next(n for n, one in enumerate(IDS.tolist()) if tuple(one[:2]) == LEVEL_TWO[place])
    beams = level_two([place], [-1.5])
    child = best_children(TRIE, only_children(TRIE, 2, beams), 3)
    assert child.valid.tolist() == [[True, False, False]] * 2
    assert child.node[0, 0] == row
    assert child.tokens[0, 0].tolist() == IDS[row].tolist()
    assert child.score[0, 0] == -1.5
