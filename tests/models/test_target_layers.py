"""A draft that begins as layers of its target."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.llama import LlamaConfig, forward, init_params
from atspeed_jax.models.target_layers import TargetLayersConfig, take_layers
from atspeed_jax.utils.ranges import RangeError

TARGET = LlamaConfig(30, 16, 24, 4, 2, 2, 8, 1e4, 1e-6, False, 0.1, "float32", False, adapter_dropout=0.1)


@pytest.fixture(scope="module")
def params():
    return init_params(TARGET, jax.random.key(0))


def logits(config, params):
    tokens = jnp.array([[1, 5, 7, 2]])
    return np.asarray(forward(config, params, tokens, jnp.ones_like(tokens, bool)))


def test_the_layers_that_are_named_and_all_around_them(params):
    taken = take_layers(params, (0, 3))
    assert jax.tree.structure(taken) == jax.tree.structure(params)
    for name in ("embedding", "norm", "head"):
        jax.tree.map(np.testing.assert_array_equal, taken[name], params[name])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[np.array([0, 3])]), taken["layers"], params["layers"])


def test_all_layers_are_the_target(params):
    draft = TargetLayersConfig((0, 1, 2, 3)).of(TARGET)
    np.testing.assert_array_equal(logits(draft, take_layers(params, (0, 1, 2, 3))), logits(TARGET, params))


def test_layers_that_do_nothing_may_be_left_out(params):
    """A layer whose output matrices are zero adds nothing: the draft without such layers is the target."""
    idle = jax.tree.map(lambda leaf: leaf, params)  # a copy of the nesting
    for part, name in (("attention", "output"), ("mlp", "down")):
        kernel = idle["layers"][part][name]["kernel"]
        idle["layers"][part][name]["kernel"] = kernel.at[jnp.array([1, 2])].set(0.0)
    config, layers = TargetLayersConfig((0, 3)), (0, 3)
    np.testing.assert_allclose(logits(config.of(TARGET), take_layers(idle, layers)), logits(TARGET, idle), atol=1e-6)
    assert np.abs(logits(config.of(TARGET), take_layers(params, layers)) - logits(TARGET, params)).max() > 1e-2


def test_training_begins_in_float32(params):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(take_layers(half, (1,)))} == {jnp.dtype("float32")}


def test_all_other_sizes_are_those_of_the_target():
    draft = TargetLayersConfig((0, 2), dropout=0.05).of(TARGET)
    assert draft == dataclasses.replace(TARGET, layers=2, dropout=0.05, adapter_dropout=0.0)


def test_layers_counted_from_the_end():
    assert TargetLayersConfig((0, -1)).numbers(TARGET) == (0, 3)
    assert TargetLayersConfig((-4, 1, -1)).numbers(TARGET) == (0, 1, 3)


@pytest.mark.parametrize("layers", [(0, 4), (-5, 1), (1, 1), (2, 0), (3, -1)])
def test_layers_that_the_target_does_not_have_or_in_another_order(layers):
    with pytest.raises(ValueError, match="different layers of the target in their order; it has 4, numbered from 0 to"):
        TargetLayersConfig(layers).of(TARGET)


def test_no_layers_and_numbers_out_of_range():
    with pytest.raises(ValueError, match=r"target_layers=\(\): expected numbers"):
        TargetLayersConfig(())
    with pytest.raises(RangeError, match="target_layers"):
        TargetLayersConfig((0, 10**6))
