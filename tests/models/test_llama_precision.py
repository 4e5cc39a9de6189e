"""What a model's dtype says of its products, and what padding may hold."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.llama import LlamaConfig, LlamaStep, forward
from atspeed_jax.models.unroll import unroll
from atspeed_jax.shapes import SlotMask, StepInput
from numpy_llama import wide_params

CONFIG = LlamaConfig(19, 16, 20, 2, 4, 2, 6, 100.0, 1e-5, False, 0.0, "float32", False)
VALID = np.array([[False, False, True, True], [True] * 4])
TOKENS = np.where(VALID, np.arange(8).reshape(2, 4) + 1, 0)
NODES = 3  # of a tree, in slots 4, 5 and 6: two children of the root and a child of the first
PATHS = np.array([[-1, -1]] * 4 + [[4, -1], [5, -1], [4, 6]])
SLOTS = 8


@pytest.fixture(params=[False, True], ids=["stacked", "side by side"])
def unrolled(request):
    return request.param


@functools.cache
def parameters():
    return jax.tree.map(jnp.asarray, wide_params(CONFIG, seed=1))


def call(config, unrolled, params):
    """The arguments of a call that reads prompt and tree, but n_out."""
    tokens = np.concatenate([TOKENS, [[9, 10, 11]] * 2], 1)
    positions = np.concatenate([np.maximum(VALID.cumsum(1) - 1, 0), VALID.sum(1)[:, None] + [0, 0, 1]], 1)
    slots = np.broadcast_to(np.arange(7), tokens.shape)
    begin = np.broadcast_to(4 - VALID.sum(1)[:, None], tokens.shape)
    end = np.broadcast_to([1, 2, 3, 4, *[4] * NODES], tokens.shape)
    mask = SlotMask(*map(jnp.asarray, (begin, end, np.broadcast_to(PATHS, (2, *PATHS.shape)))), 4)
    cache = LlamaStep(config, unrolled).init_cache(2, SLOTS)
    inputs = StepInput(*map(jnp.asarray, (tokens, positions, slots)), mask)
    return unroll(params) if unrolled else params, inputs, cache


def logits_of(config, unrolled, params):
    """[2, 4, 19] of the root and of the tree's nodes."""
    step = jax.jit(LlamaStep(config, unrolled), static_argnames="n_out")
    return step(*call(config, unrolled, params), n_out=1 + NODES)[0]


def products_of(config, unrolled):
    step = functools.partial(LlamaStep(config, unrolled), n_out=1 + NODES)
    return list(products_in(jax.make_jaxpr(step)(*call(config, unrolled, parameters())).jaxpr))


def products_in(jaxpr):
    def has_equations(value):
        return hasattr(value, "eqns") or hasattr(value, "jaxpr")

    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=has_equations):
            if has_equations(inner):
                yield from products_in(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("precision", ["highest", "high", "default"])
def test_a_float32_model_multiplies_as_it_says(precision, unrolled):
    """On a GPU or TPU float32 products are narrower by default; on a CPU nothing else would show it."""
    config = dataclasses.replace(CONFIG, precision=precision)

    def loss(params):
        return jnp.sin(forward(config, params, jnp.asarray(TOKENS), jnp.asarray(VALID))).sum()

    gradient = jax.make_jaxpr(jax.grad(loss))(parameters()).jaxpr
    found = [one.params["precision"] for one in [*products_of(config, unrolled), *products_in(gradient)]]
    assert len(found) > 30
    assert set(found) == {(jax.lax.Precision[precision.upper()],) * 2}


def test_a_bfloat16_model_has_logits_in_float32(unrolled):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    found = products_of(config, unrolled)
    assert {operand.aval.dtype for one in found for operand in one.invars} == {jnp.dtype("bfloat16")}
    wide = [one for one in found if one.outvars[0].aval.dtype == jnp.float32]
    # Attention of each layer (a scanned layer stands there once), and the head.
    assert len(wide) == (3 if unrolled else 2)
    assert wide[-1].outvars[0].aval.shape == (2, 4, 19)
    logits = logits_of(config, unrolled, parameters())
    assert (logits.astype(jnp.bfloat16).astype(jnp.float32) != logits).mean() > 0.8


def test_what_a_model_computes_in_is_said_in_words():
    words = {
        "float32": CONFIG,
        "float32, products in default precision": dataclasses.replace(CONFIG, precision="default"),
        "bfloat16, logits in float32": dataclasses.replace(CONFIG, dtype="bfloat16", precision="high"),
        "float64": dataclasses.replace(CONFIG, dtype="float64"),
    }
    assert {config.arithmetic: config for config in words.values()} == words


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_row_of_padding_may_hold_anything(bad, unrolled):
    """Nobody sees padding, and 0 times what is not finite is not 0."""
    good = parameters()
    spoiled = good | {"embedding": good["embedding"].at[0].set(bad)}
    found, want = (logits_of(CONFIG, unrolled, params) for params in (spoiled, good))
    np.testing.assert_array_equal(found, want)


def test_training_reads_past_the_row_of_padding_too():
    good = parameters()
    spoiled = good | {"embedding": good["embedding"].at[0].set(np.nan)}
    found, want = (forward(CONFIG, params, jnp.asarray(TOKENS), jnp.asarray(VALID)) for params in (spoiled, good))
    np.testing.assert_array_equal(found[VALID], want[VALID])
