"""The coverage loss and its thresholds against cases by hand, sorting, and the budget rule of decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment import coverage
from atspeed_jax.decoding.budget import lead


def random_pair(seed, shape=(2, 6)):
    keys = jax.random.split(jax.random.key(seed))
    return tuple(jax.nn.log_softmax(jax.random.normal(key, shape), -1) for key in keys)


def missed_by_width(p, q, exists, *, top_k, width):
    return coverage.shortfall(p, q, exists, coverage.width_threshold(q, exists, width), top_k=top_k)


def test_coverage_by_hand():
    p = jnp.log(jnp.array([[0.4, 0.1, 0.3, 0.15, 0.05, 0.9]]))
    q = jnp.array([[-1.0, -2.0, -4.0, -3.0, -5.0, 0.0]])
    exists = jnp.array([[True, True, True, True, True, False]])
    # Wanted: 0 and 2. The student's best outside its two best is 3, at -3.
    s = coverage.SOFTNESS
    expected = s * (np.log1p(np.exp((-3 + 1) / s)) + np.log1p(np.exp((-3 + 4) / s))) / 2
    np.testing.assert_allclose(missed_by_width(p, q, exists, top_k=2, width=2), [expected], rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5, 39, 40, 41, 100])
def test_kth_largest_is_what_sorting_finds(k):
    rng = np.random.default_rng(k)
    scores = np.float32(rng.normal(size=(6, 40)) * 10.0 ** rng.integers(-30, 30, (6, 40)))
    scores[1] = np.round(rng.normal(size=40))  # ties
    scores[2, 10:] = -np.inf
    scores[3], scores[4] = -np.abs(scores[3]), 0.0
    scores[5] = -1e30
    want = np.sort(scores, 1)[:, -k] if k <= 40 else np.full(6, -np.inf)
    np.testing.assert_array_equal(coverage.kth_largest(jnp.asarray(scores), k)[:, 0], want)


def test_the_gradient_of_coverage_leaves_the_threshold_alone():
    p, q = random_pair(6)
    exists = jnp.ones(p.shape, bool)
    found = jax.grad(lambda q: missed_by_width(p, q, exists, top_k=2, width=2).sum())(q)
    theta, wanted = np.sort(q)[:, -3:-2], np.asarray(p) >= np.sort(p)[:, -2:-1]
    expected = np.where(wanted, -1 / (1 + np.exp((q - theta) / coverage.SOFTNESS)), 0) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_coverage_of_a_level_no_wider_than_the_draft_is_nothing():
    p, q = random_pair(4)
    exists = jnp.broadcast_to(jnp.arange(6) < 4, p.shape)
    for width in (4, 5, 6, 7, 100):
        np.testing.assert_array_equal(missed_by_width(p, q, exists, top_k=2, width=width), np.zeros(2))
    assert (missed_by_width(p, q, exists, top_k=2, width=3) > 0).all()
    assert np.isfinite(missed_by_width(p, q, exists & False, top_k=2, width=3)).all(), "nothing there, nothing missed"


def test_descent_on_coverage_brings_the_teachers_beams_inside():
    p, q = (10 * x for x in random_pair(5, (4, 40)))
    exists, wanted = jnp.ones(p.shape, bool), jax.lax.top_k(p, 5)[1]

    def missed(q):
        inside = jax.lax.top_k(q, 8)[1]
        return int((wanted[:, :, None] != inside[:, None]).all(-1).sum())

    before = missed(q)
    descend = jax.jit(jax.grad(lambda q: missed_by_width(p, jax.nn.log_softmax(q), exists, top_k=5, width=8).sum()))
    for _ in range(200):
        q = q - 2.0 * descend(q)
    assert before > 8
    assert missed(q) == 0


def test_thresholds_of_a_budget_by_hand():
    """K = 2, so a level is compared with its third score; leads are 3, 2, 0, -1 and 1, 0.5, 0."""
    q = [jnp.array([[-1.0, -2.0, -4.0, -5.0]]), jnp.array([[-3.0, -4.0, -5.0, -9.0]])]
    exists = [jnp.ones((1, 4), bool)] * 2
    for budget, expected in ((3, (-3.5, -4.0)), (4, (-4.0, -5.0)), (6, (-5.0, -7.0)), (7, (-np.inf, -9.0))):
        found = coverage.budget_thresholds(q, exists, top_k=2, widths=(4, 3), budget=budget)
        assert tuple(float(theta[0, 0]) for theta in found) == expected


def test_a_budget_covers_what_a_target_call_would_read():
    """Of the drafted nodes those above the thresholds are the M of the largest leads."""
    rng, widths, beams = np.random.default_rng(0), (6, 8, 9), 4
    q = [jnp.asarray(rng.normal(size=(5, 9 + level)) * 3 - 5 * level, jnp.float32) for level in range(3)]
    exists = [jnp.asarray(rng.random(scores.shape) < share) for scores, share in zip(q, (0.9, 0.3, 0.8), strict=True)]
    leads, drafted = [], []
    for depth, (scores, there, width) in enumerate(zip(q, exists, widths, strict=True), 1):
        drafted.append(there & (scores > coverage.width_threshold(scores, there, width)))
        free, level = jnp.full(scores.shape, jnp.inf), jnp.array([[depth]])
        found = lead(scores, drafted[-1], level, free, beams=beams)
        leads.append(np.where(drafted[-1], found, -np.inf))
    for budget in (4, 9, 13, 29):
        thetas = coverage.budget_thresholds(q, exists, top_k=beams, widths=widths, budget=budget)
        read = [np.asarray(d & (scores > theta)) for d, scores, theta in zip(drafted, q, thetas, strict=True)]
        for user in range(5):
            ranked = np.sort(np.concatenate([own[user] for own in leads]))[::-1]
            for own, chosen in zip(leads, read, strict=True):
                np.testing.assert_array_equal(
                    chosen[user], own[user] > ranked[budget] if budget < 40 else own[user] > -np.inf
                )


def test_a_level_without_nodes_asks_nothing():
    q, nothing = [jnp.zeros((1, 3)), jnp.zeros((1, 3))], jnp.zeros((1, 3), bool)
    thetas = coverage.budget_thresholds(q, [~nothing, nothing], top_k=2, widths=(3, 3), budget=2)
    assert coverage.shortfall(q[1], q[1], nothing, thetas[1], top_k=2) == 0
    assert not any(np.isnan(theta).any() for theta in thetas)
