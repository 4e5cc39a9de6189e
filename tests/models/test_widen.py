"""A widened Llama has the logits of the trained one, in every layout; and a mistake in any part of the rule shows."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models import wide_shapes
from atspeed_jax.models import widen as module
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.wide_shapes import Shape, WidenError, widened_config
from atspeed_jax.models.widen import widen
from atspeed_jax.shapes import StepInput
from numpy_llama import wide_params

SCALING = RopeScalingConfig("llama3", 8.0, 1.0, 4.0, 60)
PLAIN = LlamaConfig(19, 16, 20, 2, 2, 2, 4, 100.0, 1e-2, True, 0.0, "float32", False)
GROUPED = dataclasses.replace(PLAIN, heads=4, kv_heads=2)
APART = dataclasses.replace(GROUPED, tied_embeddings=False, rope_scaling=SCALING)
# Name -> (trained config, shape): each part of the rule, alone and together.
CASES = {
    "hidden size": (PLAIN, Shape(24, 20, 2, 8, 8)),
    "mlp": (PLAIN, Shape(16, 33, 2, 8, 8)),
    "layers": (PLAIN, Shape(16, 20, 4, 8, 8)),
    "heads": (PLAIN, Shape(16, 20, 2, 20, 20)),
    "head_dim": (PLAIN, Shape(16, 20, 2, 24, 24, 12)),
    "plain heads in groups": (PLAIN, Shape(24, 24, 3, 48, 16, 8)),
    "groups in groups": (GROUPED, Shape(24, 24, 3, 24, 12)),
    "groups in smaller groups": (GROUPED, Shape(24, 24, 3, 32, 32, 8)),
    "all, head apart, scaled rotary": (APART, Shape(40, 48, 4, 96, 48, 12)),
}
VALID = np.array([[False, False, True, True, True], [True] * 5])
TOKENS = np.where(VALID, np.arange(10).reshape(2, 5) + 1, 0)


@functools.cache
def trained(config):
    return wide_params(config, seed=1)


def logits(config, params, unrolled):
    """Logits of the last three tokens, with a cache as the decoder reads it."""
    step, inputs = LlamaStep(config, unrolled), StepInput.causal(jnp.asarray(TOKENS), jnp.asarray(VALID))
    return jax.jit(step, static_argnames="n_out")(params, inputs, step.init_cache(2, 5), n_out=3)[0]


def widened_logits(name, unrolled=False):
    config, shape = CASES[name]
    big = widened_config(config, name, shape)
    params = unroll(trained(config)) if unrolled else trained(config)
    return logits(big, widen(config, params, big), unrolled)


@pytest.mark.parametrize(
    "unrolled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["stacked", "side by side"]
)
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_trained_model(name, unrolled):
    config, shape = CASES[name]
    want = logits(config, trained(config), False)
    assert np.ptp(want) > 1
    np.testing.assert_allclose(widened_logits(name, unrolled), want, rtol=0, atol=1e-5)
    big = widened_config(config, name, shape)
    assert (big.hidden_size, big.intermediate_size, big.layers) == shape[:3]
    assert (big.heads * big.head_dim, big.kv_heads * big.head_dim) == shape[3:5]


@pytest.mark.parametrize("unrolled", [False, True], ids=["stacked", "side by side"])
def test_either_layout_is_made_of_either(unrolled):
    config, shape = CASES["all, head apart, scaled rotary"]
    big = widened_config(config, "x", shape)
    made = [widen(config, params, big, unrolled=unrolled) for params in (trained(config), unroll(trained(config)))]
    assert ("layers" in made[0]) != unrolled
    jax.tree.map(np.testing.assert_array_equal, *made)


def test_new_weights_are_random_and_cost_what_they_say():
    """Zero weights would be as equal, but a product with zeros may be cheaper."""
    config, shape = CASES["layers"]
    made = widen(config, trained(config), widened_config(config, "x", shape), unrolled=True)
    for layer in ("layers_2", "layers_3"):
        for part in ("attention", "mlp"):
            for name in set(made[layer][part]) - {"output", "down"}:
                assert 0.01 < np.std(made[layer][part][name]["kernel"]) < 0.03
        assert not np.any(made[layer]["attention"]["output"]["kernel"])
        assert not np.any(made[layer]["mlp"]["down"]["kernel"])
    assert not np.array_equal(*(made[layer]["mlp"]["gate_up"]["kernel"] for layer in ("layers_2", "layers_3")))


def test_matrices_have_the_dtype_asked_for_and_norms_stay_wide():
    config, shape = CASES["all, head apart, scaled rotary"]
    big = dataclasses.replace(widened_config(config, "x", shape), dtype="bfloat16")
    made = widen(config, trained(config), big)
    kinds = {
        leaf.ndim - ("layers" in str(path)): leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(made)
    }
    assert kinds == {2: jnp.bfloat16, 1: jnp.float32}
    want = logits(config, trained(config), False)
    assert np.abs(logits(big, made, False) - want).max() < 0.05 * np.ptp(want)


def forget_eps(monkeypatch):
    def replace(config, **fields):
        return dataclasses.replace(config, **fields | {"norm_eps": config.norm_eps})

    monkeypatch.setattr(wide_shapes, "dataclasses", SimpleNamespace(replace=replace, fields=dataclasses.fields))


def forget_scale(monkeypatch):
    monkeypatch.setattr(
        module, "_scale", lambda place, old: jnp.ones(place.big.hidden_size).at[:16].set(1.0 if old is None else old)
    )


def forget_root(monkeypatch):
    embed = module._embed

    def without(place, layer, own):
        made = embed(place, layer, own)
        kernel = made["attention"]["query"]["kernel"]
        root = (place.big.head_dim / place.small.head_dim) ** 0.5
        made["attention"]["query"] = {"kernel": kernel.at[:, place.query].divide(root)}
        return made

    monkeypatch.setattr(module, "_embed", without)


def adjacent_frequencies(monkeypatch):
    place = module._place

    def wrong(small, big):
        right = place(small, big)
        within = np.arange(small.head_dim)
        columns = (right.query_heads[:, None] * big.head_dim + within).reshape(-1)
        return right._replace(query=columns, key=(right.key_heads[:, None] * big.head_dim + within).reshape(-1))

    monkeypatch.setattr(module, "_place", wrong)


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        (forget_eps, "hidden size"),
        (forget_scale, "hidden size"),
        (forget_root, "head_dim"),
        (adjacent_frequencies, "head_dim"),
    ],
)
def test_a_mistake_changes_the_logits(monkeypatch, mistake, name):
    want = logits(CASES[name][0], trained(CASES[name][0]), False)
    mistake(monkeypatch)
    assert np.abs(widened_logits(name) - want).max() > 1e-3


def test_an_array_that_widening_does_not_know_is_named():
    params = trained(PLAIN) | {"bias": np.ones(3, np.float32)}
    with pytest.raises(WidenError, match=r"parameter bias of the trained model has shape \(3,\), expected None"):
        widen(PLAIN, params, widened_config(PLAIN, "x", CASES["mlp"][1]))
