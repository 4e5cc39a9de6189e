"""The alignment loss: its mix, what teacher and student see, and that training on it brings the draft to the target."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from atspeed_jax.alignment.align import AlignConfig, align_loss
from atspeed_jax.alignment.teacher import settled_nodes
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep, init_params

MODEL = LlamaConfig(14, 16, 32, 1, 2, 2, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)
CONFIG = AlignConfig(
    "tree_kd", alpha=1.0, temperature=1.0, top_k=3, density_weight=1.0, coverage_weight=1.0, score_norm="vocab"
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(1)
    ids = np.unique(rng.integers(0, 4, (25, 3)), axis=0) + 2 + 4 * np.arange(3)
    trie = build_trie(ids)
    tokens = np.where(np.arange(5) >= rng.integers(0, 4, (6, 1)), rng.integers(1, 14, (6, 5)), 0)
    target = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(1)))
    prompt = Prompt(jnp.asarray(tokens, jnp.int32), jnp.asarray(tokens > 0))
    nodes = settled_nodes(LlamaStep(MODEL), target, trie, prompt, beams=4, score_norm="vocab")
    next_id = jnp.asarray(rng.integers(0, len(ids), 6), jnp.int32)
    batch = {"tokens": prompt.tokens, "valid": prompt.valid, "beams": nodes[:, :-1], "next_id": next_id}
    return tree_context(trie, ids), target, batch


compiled_loss = jax.jit(align_loss, static_argnums=(0, 1, 2))


def loss_of(config, world, draft):
    context, target, batch = world
    return compiled_loss(config, MODEL, MODEL, draft, target, context, batch, None)


@pytest.mark.parametrize("objective", ["tree_kd", "atspeed_s", "atspeed_r"])
def test_the_target_itself_is_perfectly_aligned(world, objective):
    config = dataclasses.replace(CONFIG, objective=objective, density_weight=0.0)
    loss, parts = loss_of(config, world, world[1])
    np.testing.assert_allclose(loss, 0.0, atol=1e-4)
    assert parts["next_item_loss"] > 0


def test_alpha_mixes_the_two_parts(world):
    draft = init_params(MODEL, jax.random.key(2))
    loss, parts = loss_of(dataclasses.replace(CONFIG, alpha=0.3), world, draft)
    np.testing.assert_allclose(loss, 0.7 * parts["next_item_loss"] + 0.3 * parts["align_loss"], rtol=1e-6)
    sft, _ = loss_of(dataclasses.replace(CONFIG, objective="sft"), world, draft)
    np.testing.assert_allclose(sft, parts["next_item_loss"], rtol=1e-6)


def test_no_gradient_reaches_the_teacher(world):
    context, target, batch = world
    draft = init_params(MODEL, jax.random.key(2))
    grads = jax.grad(lambda t: align_loss(CONFIG, MODEL, MODEL, draft, t, context, batch, None)[0])(target)
    assert all(not bool(g.any()) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("objective", ["tree_kd", "atspeed_s", "atspeed_r"])
def test_descent_aligns_the_draft(world, objective):
    config = dataclasses.replace(CONFIG, objective=objective, density_weight=0.0)
    params = init_params(MODEL, jax.random.key(3))
    optimizer = optax.adam(3e-2)

    @jax.jit
    def step(params, state):
        (value, _), grads = jax.value_and_grad(lambda p: loss_of(config, world, p), has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state, values = optimizer.init(params), []
    for _ in range(60):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.3 * values[0]


def test_coverage_adds_to_tree_kd_what_the_widths_miss(world):
    context, target, batch = world
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    config = dataclasses.replace(CONFIG, objective="coverage", coverage_weight=0.5, alpha=0.9)
    coverage = jax.jit(align_loss, static_argnums=(0, 1, 2), static_argnames="widths")
    plain = loss_of(CONFIG, world, draft)[1]
    missed = []
    for widths in ((3, 4, 4), (3, 4, 8), (3, 99, 99), (99, 99, 99)):
        loss, parts = coverage(config, MODEL, MODEL, draft, target, context, batch, None, widths=widths)
        np.testing.assert_allclose(parts["align_loss"], plain["align_loss"], rtol=1e-6)
        aligned = parts["align_loss"] + 0.5 * parts["coverage_loss"]
        np.testing.assert_allclose(loss, 0.1 * parts["next_item_loss"] + 0.9 * aligned, rtol=1e-6)
        missed.append(float(parts["coverage_loss"]))
    assert missed == sorted(missed, reverse=True) and len(set(missed)) == 4 and missed[-1] == 0


def test_coverage_needs_a_width_for_every_drafted_level(world):
    config = dataclasses.replace(CONFIG, objective="coverage")
    with pytest.raises(ValueError, match="zip"):
        align_loss(config, MODEL, MODEL, world[1], world[1], world[0], world[2], None, widths=(4,))


@pytest.mark.parametrize(
    ("field", "value"),
    [("coverage_weight", -1.0), ("density_weight", -1.0), ("alpha", 1.5), ("temperature", 0.001), ("top_k", 0)],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


def test_the_references_objective_warns(world):
    with pytest.warns(UserWarning, match="gradient is zero almost everywhere"):
        config = dataclasses.replace(CONFIG, objective="reference_tv")
    grads = jax.grad(lambda draft: loss_of(config, world, draft)[0])(init_params(MODEL, jax.random.key(3)))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 1e-6
