import dataclasses
import functools

import jax
import pytest

from atspeed_jax.models.axes import PARAM_AXES, is_joined, logical_axes
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import TARGETS, LoraConfig, init_adapter
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.weights import param_shapes

MODEL = LlamaConfig(24, 16, 32, 2, 4, 2, 6, 1e4, 1e-6, False, 0.0, "float32", False)
SIZES = {"vocab": 24, "embed": 16, "mlp": 32, "heads": 24, "kv_heads": 12, "layers": 2}


BIASED = dataclasses.replace(MODEL, model_type="qwen3", attention_bias=True)


def named(tree):
    """(path, shape, names) of every leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        yield name, leaf.shape, logical_axes(name)


@pytest.mark.parametrize("model", [MODEL, BIASED], ids=["plain", "biases and normed heads"])
def test_every_parameter_of_a_llama_has_the_sizes_its_names_say(model):
    for path, shape, names in named(param_shapes(model)):
        if path.endswith("scale"):
            assert names == ()
        else:
            assert shape == tuple(SIZES[name] for name in names), path


def test_a_layer_of_its_own_has_the_names_of_the_stack_but_the_first():
    shapes = list(named(jax.eval_shape(functools.partial(unroll, join=False), param_shapes(MODEL))))
    assert sum(path.startswith("layers_1/") for path, _, _ in shapes) == 9
    for path, shape, names in shapes:
        if not path.endswith("scale"):
            assert shape == tuple(SIZES[name] for name in names), path


def test_a_joined_matrix_is_not_split():
    shapes = list(named(jax.eval_shape(unroll, param_shapes(MODEL))))
    joined = {path: names for path, _, names in shapes if path.endswith(("query_key_value/kernel", "gate_up/kernel"))}
    assert len(joined) == 3
    assert set(joined.values()) == {()}
    assert sum(is_joined(path) for path, _, _ in shapes) == 4  # with key and value of the last layer
    biased = list(named(jax.eval_shape(unroll, param_shapes(BIASED))))
    assert sum(is_joined(path) for path, _, _ in biased) == 6
    assert not any(names for path, _, names in biased if is_joined(path))
    assert not any(is_joined(path) for path, _, _ in named(param_shapes(MODEL)))


def test_an_adapter_of_every_matrix_has_the_sizes_its_names_say():
    lora = LoraConfig(5, 1.0, 0.0, tuple(TARGETS))
    params = param_shapes(MODEL)
    shapes = jax.eval_shape(lambda base, key: init_adapter(MODEL, lora, base, 7, key), params, jax.random.key(0))
    found = list(named(shapes))
    assert len(found) == 2 * len(TARGETS) + 2
    for path, shape, names in found:
        assert len(names) == len(shape), path
        assert shape == tuple(SIZES.get(name, size) for name, size in zip(names, shape, strict=True)), path
        assert {size for name, size in zip(names, shape, strict=True) if name is None} <= {5, 7}


@pytest.mark.parametrize("path", ["opt_state/1/0/mu/layers/mlp/up/kernel", "trained/layers/mlp/up/kernel"])
def test_what_is_shaped_like_a_parameter_has_its_names(path):
    assert logical_axes(path) == PARAM_AXES["up/kernel"]


def test_other_arrays_have_no_names():
    assert logical_axes("step") == logical_axes("hidden/kernel") == ()
