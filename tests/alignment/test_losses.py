"""Objectives against hand-computed cases, finite differences and the properties their equations promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment import losses

pytestmark = pytest.mark.usefixtures("quick_compilation")


def log_softmax(rows):
    return jax.nn.log_softmax(jnp.asarray(rows), -1)


def random_pair(seed, shape=(2, 3, 6)):
    first, second = jax.random.split(jax.random.key(seed))
    return log_softmax(jax.random.normal(first, shape)), log_softmax(jax.random.normal(second, shape))


def numeric_gradient(f, x, direction, step=1e-3):
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


def test_tree_kd_by_hand():
    p = jnp.log(jnp.array([[[0.5, 0.25, 0.25, 1e-9]]]))
    q = jnp.log(jnp.array([[[0.25, 0.5, 0.25, 1e-9]]]))
    exists = jnp.array([[[True, True, True, False]]])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    np.testing.assert_allclose(losses.tree_kd(p, q, exists), [[expected]], rtol=1e-5)


def test_tree_kd_ignores_what_does_not_exist():
    p, q = random_pair(0)
    exists = jnp.arange(6) < 4
    full = losses.tree_kd(p, q, jnp.broadcast_to(exists, p.shape))
    changed = losses.tree_kd(p, q.at[..., 4:].set(-50.0), jnp.broadcast_to(exists, p.shape))
    np.testing.assert_array_equal(full, changed)


@pytest.mark.parametrize("seed", range(5))
def test_divergences_are_not_negative_and_vanish_when_equal(seed):
    p, q = random_pair(seed)
    everything = jnp.ones(p.shape, bool)
    assert (losses.tree_kd(p, q, everything) > 0).all()
    assert (losses.atspeed_r(p, q, everything) > 0).all()
    np.testing.assert_array_equal(losses.atspeed_r(p, p, everything), 0.0)
    np.testing.assert_allclose(losses.tree_kd(p, p, everything), 0.0, atol=1e-6)
    for top_k in (1, 3, 6):
        value = losses.atspeed_s(p, q, everything, top_k=top_k, density_weight=0.0)
        assert (value > -1e-6).all(), "the tail bucket keeps it a divergence"
        np.testing.assert_allclose(losses.atspeed_s(p, p, everything, top_k=top_k, density_weight=0.0), 0.0, atol=1e-5)


def test_atspeed_s_by_hand():
    p = jnp.array([[[0.1, 0.2, 0.3, 0.4]]])
    q = jnp.array([[[0.4, 0.3, 0.2, 0.1]]])
    value = losses.atspeed_s(jnp.log(p), jnp.log(q), jnp.ones((1, 1, 4), bool), top_k=2, density_weight=0.5)
    divergence = 0.4 * np.log(0.4 / 0.1) + 0.3 * np.log(0.3 / 0.2) + 0.3 * np.log(0.3 / 0.7)
    share = np.array([0.4, 0.3]) / 0.7
    entropy = -(share * np.log(share)).sum()
    np.testing.assert_allclose(value, [[divergence + 0.5 * 0.2 * entropy]], rtol=1e-5)


def test_atspeed_s_with_fewer_children_than_k_has_no_density_term():
    p, q = random_pair(3)
    exists = jnp.broadcast_to(jnp.arange(6) < 2, p.shape)
    p, q = (jax.nn.log_softmax(jnp.where(exists, x, -1e9), -1) for x in (p, q))
    with_density = losses.atspeed_s(p, q, exists, top_k=3, density_weight=7.0)
    np.testing.assert_array_equal(with_density, losses.atspeed_s(p, q, exists, top_k=3, density_weight=0.0))
    kl = jnp.where(exists, jnp.exp(q) * (q - p), 0.0).sum(-1)  # S is all there is: plain reverse KL
    np.testing.assert_allclose(with_density, kl, atol=1e-5)


def test_atspeed_s_with_exactly_k_children_has_the_density_term():
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.4, 0.1])
    exists = jnp.array([[[True, True, True, False]]])
    padded = [jnp.log(jnp.array([[[*x, 0.9]]])) for x in (p, q)]
    value = losses.atspeed_s(*padded, exists, top_k=3, density_weight=2.0)
    # S is all there is, and the third of it, which the teacher gives 0.5, has the density.
    expected = (q * np.log(q / p)).sum() + 2.0 * 0.5 * -(q * np.log(q)).sum()
    np.testing.assert_allclose(value, [[expected]], rtol=1e-5)


def test_atspeed_r_by_hand():
    p, q = (jnp.log(jnp.array([[row]])) for row in ([0.5, 0.3, 0.2, 0.9], [0.2, 0.3, 0.5, 0.1]))
    exists = jnp.array([[[True, True, True, False]]])
    np.testing.assert_allclose(losses.atspeed_r(p, q, exists), [[0.3]], rtol=1e-6)
    apart = jnp.log(jnp.array([[[1e-9, 1e-9, 1.0, 0.5]]]))
    np.testing.assert_allclose(
        losses.atspeed_r(jnp.log(jnp.array([[[1.0, 1e-9, 1e-9, 0.5]]])), apart, exists), 1.0, atol=1e-6
    )


def test_the_references_total_variation_has_no_gradient():
    p, _ = random_pair(2)
    logits = jax.random.normal(jax.random.key(9), p.shape)
    exists = jnp.broadcast_to(jnp.arange(6) < 5, p.shape)

    def value(objective, logits):
        return objective(p, jax.nn.log_softmax(logits, -1), exists).sum()

    assert not jax.grad(lambda x: value(losses.reference_tv, x))(logits).any()
    assert jnp.abs(jax.grad(lambda x: value(losses.atspeed_r, x))(logits)).max() > 0.01
    one_hot = losses.reference_tv(p, jax.nn.log_softmax(logits), exists)
    agree = jnp.where(exists, p, -9.0).argmax(-1) == jnp.where(exists, logits, -9.0).argmax(-1)
    np.testing.assert_allclose(one_hot, jnp.where(agree, 0.0, 1.0), atol=1e-5)  # 1 wherever the best child differs


@pytest.mark.parametrize("name", ["tree_kd", "atspeed_s", "atspeed_r"])
def test_gradients_agree_with_finite_differences(name):
    p, _ = random_pair(1)
    logits = jax.random.normal(jax.random.key(9), p.shape)
    direction = jax.random.normal(jax.random.key(10), p.shape)
    exists = jnp.ones(p.shape, bool)

    def value(logits):
        q = jax.nn.log_softmax(logits, -1)
        if name == "tree_kd":
            return losses.tree_kd(p, q, exists).sum()
        if name == "atspeed_r":
            return losses.atspeed_r(p, q, exists).sum()
        return losses.atspeed_s(p, q, exists, top_k=3, density_weight=0.7).sum()

    analytic = (jax.grad(value)(logits) * direction).sum()
    np.testing.assert_allclose(analytic, numeric_gradient(value, logits, direction), rtol=2e-2)


def test_coverage_by_hand():
    p = jnp.log(jnp.array([[0.4, 0.1, 0.3, 0.15, 0.05, 0.9]]))
    q = jnp.array([[-1.0, -2.0, -4.0, -3.0, -5.0, 0.0]])
    exists = jnp.array([[True, True, True, True, True, False]])
    # Wanted: 0 and 2. The student's best outside its two best is 3, at -3.
    s = losses.SOFTNESS
    expected = s * (np.log1p(np.exp((-3 + 1) / s)) + np.log1p(np.exp((-3 + 4) / s))) / 2
    np.testing.assert_allclose(losses.coverage(p, q, exists, top_k=2, width=2), [expected], rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5, 39, 40, 41, 100])
def test_kth_largest_is_what_sorting_finds(k):
    rng = np.random.default_rng(k)
    scores = np.float32(rng.normal(size=(6, 40)) * 10.0 ** rng.integers(-30, 30, (6, 40)))
    scores[1] = np.round(rng.normal(size=40))  # ties
    scores[2, 10:] = -np.inf
    scores[3], scores[4] = -np.abs(scores[3]), 0.0
    scores[5] = -1e30
    want = np.sort(scores, 1)[:, -k] if k <= 40 else np.full(6, -np.inf)
    np.testing.assert_array_equal(losses.kth_largest(jnp.asarray(scores), k)[:, 0], want)


def test_the_gradient_of_coverage_leaves_the_threshold_alone():
    p, q = (x[:, 0] for x in random_pair(6))
    exists = jnp.ones(p.shape, bool)
    found = jax.grad(lambda q: losses.coverage(p, q, exists, top_k=2, width=2).sum())(q)
    theta, wanted = np.sort(q)[:, -3:-2], np.asarray(p) >= np.sort(p)[:, -2:-1]
    expected = np.where(wanted, -1 / (1 + np.exp((q - theta) / losses.SOFTNESS)), 0) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_coverage_of_a_level_no_wider_than_the_draft_is_nothing():
    p, q = (x[:, 0] for x in random_pair(4))
    exists = jnp.broadcast_to(jnp.arange(6) < 4, p.shape)
    for width in (4, 5, 6, 7, 100):
        np.testing.assert_array_equal(losses.coverage(p, q, exists, top_k=2, width=width), np.zeros(2))
    assert (losses.coverage(p, q, exists, top_k=2, width=3) > 0).all()
    assert np.isfinite(losses.coverage(p, q, exists & False, top_k=2, width=3)).all(), "nothing there, nothing missed"


def test_descent_on_coverage_brings_the_teachers_beams_inside():
    p, q = (10 * x[:, 0] for x in random_pair(5, (4, 1, 40)))
    exists, wanted = jnp.ones(p.shape, bool), jax.lax.top_k(p, 5)[1]

    def missed(q):
        inside = jax.lax.top_k(q, 8)[1]
        return int((wanted[:, :, None] != inside[:, None]).all(-1).sum())

    before = missed(q)
    descend = jax.jit(jax.grad(lambda q: losses.coverage(p, jax.nn.log_softmax(q), exists, top_k=5, width=8).sum()))
    for _ in range(200):
        q = q - 2.0 * descend(q)
    assert before > 8
    assert missed(q) == 0


def test_seq_kd_by_hand():
    q = [jnp.array([[-1.0, -1.0, -3.0], [-2.0, -4.0, -5.0]]), jnp.array([[-0.5, -1.5, 9.0], [-1.0, -1.0, 9.0]])]
    counted = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(losses.seq_kd(q, counted), (1.5 + 2.5 + 3.0) / 3)
    assert losses.seq_kd(q, counted & False) == 0, "no item, no loss"
    found = jax.grad(lambda first: losses.seq_kd([first, q[1]], counted))(q[0])
    np.testing.assert_allclose(found, jnp.where(counted, -1 / 3, 0))


def test_next_item_cross_entropy_counts_marked_nodes_only():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
    at = jnp.array([[False, True, False], [False, False, False]])
    total, count = losses.next_item_cross_entropy(logits, jnp.array([4, 2]), at)
    np.testing.assert_allclose(total, -jax.nn.log_softmax(logits[0, 1])[4], rtol=1e-6)
    assert count == 1


def test_every_level_weighs_alike_and_absent_levels_do_not_count():
    values = [jnp.array([[1.0, 5.0]]), jnp.array([[2.0, 2.0]]), jnp.array([[9.0, 9.0]])]
    counted = [jnp.array([[True, False]]), jnp.array([[True, True]]), jnp.array([[False, False]])]
    assert losses.mean_over_tree(values, counted) == pytest.approx(1.5)
