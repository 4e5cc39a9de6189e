import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.llama import LlamaConfig, LlamaStep, forward
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.models.unroll import restack, unroll
from atspeed_jax.shapes import StepInput
from numpy_llama import wide_params

SCALING = RopeScalingConfig("llama3", 8.0, 1.0, 4.0, 60)
CONFIG = LlamaConfig(19, 16, 20, 3, 4, 2, 6, 100.0, 1e-5, True, 0.0, "float32", False, SCALING)
# Every matrix of attention has a bias, and each head is normed.
BIASED = dataclasses.replace(CONFIG, model_type="qwen3", attention_bias=True)
VALID = np.array([[False, False, True, True, True], [True] * 5])
TOKENS = np.where(VALID, np.arange(10).reshape(2, 5) + 1, 0)


@functools.cache
def params(config=CONFIG):
    return wide_params(config, seed=1)


def call(positions=None):
    """A prompt for a cache of 6 slots."""
    inputs = StepInput.causal(jnp.asarray(TOKENS), jnp.asarray(VALID))
    return inputs if positions is None else inputs.replace(positions=jnp.asarray(positions))


def run(unrolled, n_out, positions=None, join=True, config=CONFIG):
    step = LlamaStep(config, unrolled)
    own = unroll(params(config), join=join) if unrolled else params(config)
    return jax.jit(step, static_argnames="n_out")(own, call(positions), step.init_cache(2, 6), n_out=n_out)


def test_every_layer_has_its_own_arrays():
    apart = unroll(params(), join=False)
    assert set(apart) == {"embedding", "norm", "layers_0", "layers_1", "layers_2"}
    assert apart["embedding"] is params()["embedding"]
    for number in range(3):
        jax.tree.map(
            lambda one, stack, number=number: np.testing.assert_array_equal(one, stack[number]),
            apart[f"layers_{number}"],
            params()["layers"],
        )


def test_matrices_that_read_the_same_are_one():
    joined = unroll(params())
    for number in range(3):
        layer, stack = joined[f"layers_{number}"], params()["layers"]
        last = number == 2
        groups = {"attention": ("key", "value") if last else ("query", "key", "value"), "mlp": ("gate", "up")}
        for group, parts in groups.items():
            kernels = [stack[group][name]["kernel"][number] for name in parts]
            np.testing.assert_array_equal(layer[group]["_".join(parts)]["kernel"], np.concatenate(kernels, 1))
        assert set(layer["attention"]) == ({"query", "key_value", "output"} if last else {"query_key_value", "output"})
        assert set(layer["mlp"]) == {"gate_up", "down"}


def test_biases_of_joined_matrices_are_one():
    joined, stack = unroll(params(BIASED)), params(BIASED)["layers"]["attention"]
    for number, parts in enumerate([("query", "key", "value"), ("query", "key", "value"), ("key", "value")]):
        biases = [stack[name]["bias"][number] for name in parts]
        found = joined[f"layers_{number}"]["attention"]
        np.testing.assert_array_equal(found["_".join(parts)]["bias"], np.concatenate(biases))
        np.testing.assert_array_equal(found["output"]["bias"], stack["output"]["bias"][number])


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["plain", "biased"])
@pytest.mark.parametrize("join", [False, True])
def test_restacking_undoes_unrolling(join, config):
    jax.tree.map(np.testing.assert_array_equal, restack(unroll(params(config), join=join)), params(config))


def test_an_adapter_is_merged_before_its_matrix_is_joined():
    stack = jax.tree.map(lambda leaf: leaf, params()["layers"])
    stack["mlp"]["up"]["a"] = jnp.zeros((3, 16, 2))
    with pytest.raises(ValueError, match=r"layers/mlp/up has a beside its kernel.*merge adapters first"):
        unroll(params() | {"layers": stack})
    assert "a" in unroll(params() | {"layers": stack}, join=False)["layers_1"]["mlp"]["up"]


def test_layers_apart_are_not_taken_apart_again():
    with pytest.raises(ValueError, match=r"embedding, layers_0, layers_1, layers_2, norm .* unrolled already"):
        unroll(unroll(params()))


@pytest.mark.parametrize(
    ("n_out", "join", "config"),
    [(1, True, CONFIG), (3, True, CONFIG), (5, True, CONFIG), (3, False, CONFIG), (3, True, BIASED)],
    ids=["1 token", "3 tokens", "all tokens", "apart", "biased"],
)
def test_logits_and_caches_are_those_of_the_stack(n_out, join, config):
    """The last layer computes fewer tokens, but writes the keys and values of all."""
    (logits, caches), (want, stack) = run(True, n_out, None, join, config), run(False, n_out, config=config)
    assert logits.shape == (2, n_out, 19)
    np.testing.assert_allclose(logits[1], want[1], rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits[0, -3:], want[0, -3:], rtol=0, atol=2e-5)
    for number, cache in enumerate(caches):
        np.testing.assert_allclose(cache.keys[1], stack.keys[number, 1], rtol=0, atol=2e-5)
        np.testing.assert_allclose(cache.values[1], stack.values[number, 1], rtol=0, atol=2e-5)
        assert (np.abs(cache.keys[:, :, 2:5]).max((0, 1, 3)) > 0.1).all()


@pytest.mark.parametrize("unrolled", [False, True], ids=["stacked", "side by side"])
def test_only_the_last_tokens_are_put_out(unrolled):
    whole = jax.jit(forward, static_argnums=0)(CONFIG, params(), jnp.asarray(TOKENS), jnp.asarray(VALID))
    np.testing.assert_allclose(run(unrolled, 2)[0], whole[:, 3:], atol=1e-5)


def rows_of_products(width, config=CONFIG):
    """How many rows each product computes whose result is so wide, in order."""
    step = LlamaStep(config, unrolled=True)
    text = str(jax.make_jaxpr(functools.partial(step, n_out=2))(unroll(params(config)), call(), step.init_cache(2, 6)))
    return [int(rows) for rows in re.findall(rf"f32\[2,(\d+),{width}\] = dot_general", text)]


def test_the_last_layer_computes_no_more_than_is_put_out():
    query, key = CONFIG.heads * CONFIG.head_dim, CONFIG.kv_heads * CONFIG.head_dim
    assert rows_of_products(2 * CONFIG.intermediate_size) == [5, 5, 2]  # gate and up
    for config in (CONFIG, BIASED):
        assert rows_of_products(query + 2 * key, config) == [5, 5]
    assert query == 2 * key
    assert rows_of_products(query) == [2, 5]  # of the last layer, which has its query apart from key and value


def test_a_position_beyond_the_cache_is_no_number():
    """Its row of the table does not exist; the nearest would be a silent mistake."""
    fine, _ = run(True, 1, np.broadcast_to([1, 2, 3, 4, 5], VALID.shape))
    far, _ = run(True, 1, np.broadcast_to([1, 2, 3, 4, 6], VALID.shape))
    assert np.isfinite(fine).all()
    assert np.isnan(far).all()


def test_bad_parameters_are_those_of_the_other_kind():
    step = LlamaStep(CONFIG, unrolled=True)
    with pytest.raises(Exception, match="layers_0"):
        step(params(), call(), step.init_cache(2, 6), n_out=1)
