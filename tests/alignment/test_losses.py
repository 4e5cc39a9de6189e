"""Objectives against hand-computed cases, finite differences and the properties their equations promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment import losses


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
