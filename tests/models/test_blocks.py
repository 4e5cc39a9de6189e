import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.blocks import Dropout, RMSNorm, project


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    dropped = Dropout(rate, False).apply({}, jnp.ones((400, 500)), rngs={"dropout": jax.random.key(0)})
    share = round(256 * rate) / 256
    assert float((dropped == 0).mean()) == pytest.approx(share, abs=0.003)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - share), rtol=1e-6)


def test_dropout_may_be_told_to_drop_nothing():
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(Dropout(0.5, True).apply({}, x), x)


def test_a_norm_has_unit_squares_in_float32_whatever_it_reads():
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (4, 64)), jnp.bfloat16)
    scale = jnp.full(64, 2.0)
    normed = RMSNorm(1e-6).apply({"params": {"scale": scale}}, x)
    assert normed.dtype == jnp.bfloat16
    np.testing.assert_allclose((normed.astype(jnp.float32) ** 2).mean(-1), 4.0, rtol=0.02)


def test_a_projection_has_the_gradients_of_a_product():
    rng = np.random.default_rng(1)
    x, kernel, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 3, 4), (4, 5), (2, 3, 5)))
    value, pull = jax.vjp(lambda x, kernel: project(x, kernel, None, jnp.float32), x, kernel)
    expected, pull_of_product = jax.vjp(jnp.matmul, x, kernel)
    np.testing.assert_array_equal(value, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), pull(g), pull_of_product(g))


def test_a_wider_result_keeps_what_the_product_summed():
    """And its gradients are as narrow as what was read."""
    rng = np.random.default_rng(1)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((3, 64), (64, 5)))
    wide, pull = jax.vjp(lambda x, kernel: project(x, kernel, None, jnp.float32), x, kernel)
    exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    assert wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, exact, atol=1e-5)
    assert np.abs(project(x, kernel, None, jnp.bfloat16).astype(jnp.float32) - exact).max() > 1e-2
    assert [g.dtype for g in pull(wide)] == [jnp.bfloat16] * 2
