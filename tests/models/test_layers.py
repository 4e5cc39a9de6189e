"""The parts of a layer: the MLP by its formula, the adapter's branch, and a layer that returns its last tokens only."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.layers import MLP, Dense, Layer
from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.models.rotary import rotary_angles
from atspeed_jax.shapes import SlotMask

CONFIG = LlamaConfig(14, 16, 24, 1, 4, 2, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (2, 5, 16))


def test_the_mlp_is_swiglu(x):
    variables = MLP(CONFIG).init(jax.random.key(1), x)
    gate, up, down = (np.asarray(variables["params"][name]["kernel"]) for name in ("gate", "up", "down"))
    inner = np.asarray(x) @ gate
    expected = (inner / (1 + np.exp(-inner)) * (np.asarray(x) @ up)) @ down
    np.testing.assert_allclose(MLP(CONFIG).apply(variables, x), expected, rtol=1e-4, atol=1e-8)


def test_a_matrix_adds_the_branch_of_its_adapter(x):
    dense = Dense(CONFIG, 12)
    variables = dense.init(jax.random.key(1), x)
    a, b = jax.random.normal(jax.random.key(2), (16, 3)), jax.random.normal(jax.random.key(3), (3, 12))
    plain, adapted = dense.apply(variables, x), dense.apply(variables | {"adapter": {"a": a, "b": b}}, x)
    np.testing.assert_allclose(adapted - plain, np.asarray(x) @ np.asarray(a) @ np.asarray(b), atol=1e-4)


def test_a_bias_is_added_to_the_columns_that_are_computed(x):
    dense = Dense(CONFIG, 12, bias=True)
    variables = dense.init(jax.random.key(1), x)
    assert not np.any(variables["params"]["bias"])  # as transformers begins
    bias = jax.random.normal(jax.random.key(2), (12,))
    given = {"params": variables["params"] | {"bias": bias}}
    np.testing.assert_allclose(
        dense.apply(given, x) - dense.apply(variables, x), jnp.broadcast_to(bias, (2, 5, 12)), atol=1e-5
    )
    last = Dense(CONFIG, 12, bias=True, first=9).apply(given, x)
    np.testing.assert_allclose(last, dense.apply(given, x)[..., 9:], atol=1e-6)


def test_a_matrix_has_the_dtype_that_is_asked_for(x):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    for out, dtype in ((None, "bfloat16"), (jnp.float32, "float32")):
        dense = Dense(config, 12, out)
        assert dense.apply(dense.init(jax.random.key(1), x), x.astype("bfloat16")).dtype == dtype


def test_a_layer_of_the_last_tokens_is_that_of_all_tokens_at_these(x):
    positions = jnp.broadcast_to(jnp.arange(5), (2, 5))
    rotary = rotary_angles(positions, 8, 10_000.0, None, jnp.float32)
    mask = SlotMask.causal(jnp.ones((2, 5), bool))
    variables = Layer(CONFIG, True).init(jax.random.key(1), x, None, rotary, mask, None)
    variables = jax.tree.map(lambda leaf: 10 * leaf, variables)
    every, _ = Layer(CONFIG, True).apply(variables, x, None, rotary, mask, None)
    last, _ = Layer(CONFIG, True, n_out=2).apply(variables, x, None, rotary, mask, None)
    assert last.shape == (2, 2, 16)
    np.testing.assert_allclose(last, every[:, -2:], rtol=1e-4, atol=1e-5)
