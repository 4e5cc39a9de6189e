"""The alignment loss: its mix, what teacher and student see, and that training on it brings the draft to the target."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment import coverage, losses
from atspeed_jax.alignment.align import AlignConfig, Alignment, align_loss
from atspeed_jax.alignment.teacher_beams import beam_nodes
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep, forward, init_params
from descent import descend

MODEL = LlamaConfig(14, 16, 32, 1, 2, 2, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)
CONFIG = AlignConfig(
    "tree_kd", alpha=1.0, temperature=1.0, top_k=3, density_weight=1.0, coverage_weight=1.0, score_norm="vocab"
)

IDS = np.unique(np.random.default_rng(1).integers(0, 4, (25, 3)), axis=0) + 2 + 4 * np.arange(3)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(1)
    trie = build_trie(IDS)
    tokens = np.where(np.arange(5) >= rng.integers(0, 4, (6, 1)), rng.integers(1, 14, (6, 5)), 0)
    target = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(1)))
    prompt = Prompt(jnp.asarray(tokens, jnp.int32), jnp.asarray(tokens > 0))
    nodes = beam_nodes(LlamaStep(MODEL), target, trie, prompt, beams=4, score_norm="vocab")
    next_id = jnp.asarray(rng.integers(0, len(IDS), 6), jnp.int32)
    batch = {"tokens": prompt.tokens, "valid": prompt.valid, "next_id": next_id}
    batch |= {"beams": nodes[:, :-1], "list": nodes[:, -1]}
    return tree_context(trie, IDS), target, batch


compiled_loss = jax.jit(align_loss, static_argnums=0)
compiled_forward = jax.jit(forward, static_argnums=0)


def traced_loss(alignment, *rest):
    """Nothing is compiled."""
    return jax.eval_shape(functools.partial(align_loss, alignment), *rest)


def alignment(config, widths=()):
    return Alignment(config, MODEL, MODEL, widths)


def loss_of(config, world, draft):
    context, target, batch = world
    return compiled_loss(alignment(config), draft, target, context, batch, None)


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


@pytest.mark.parametrize(
    ("change", "weights"),
    [
        ({"alpha": 1.0}, (0, 1, 2)),
        ({"alpha": 1.0, "alpha_warmup": 3}, (1, 1, 2)),
        ({"alpha": 0.0}, (1, 0, 0)),
        ({"alpha": 0.75, "coverage_weight": 0.0}, (0.25, 0.75, 0)),
    ],
)
def test_weights_are_those_of_the_loss(change, weights):
    config = dataclasses.replace(CONFIG, objective="coverage", **{"coverage_weight": 2.0} | change)
    assert tuple(config.weights.values()) == weights
    assert list(config.weights) == ["next_item_loss", "align_loss", "coverage_loss"]
    assert dataclasses.replace(config, objective="sft").weights == {"next_item_loss": 1.0}


@pytest.mark.parametrize(("step", "alpha"), [(0, 0.0), (3, 0.225), (4, 0.3), (9, 0.3)])
def test_alpha_rises_during_its_warm_up(world, step, alpha):
    context, target, batch = world
    draft = init_params(MODEL, jax.random.key(2))
    for on_policy in (0.0, 0.5):  # whose rows are read in two parts
        config = dataclasses.replace(CONFIG, alpha=0.3, alpha_warmup=4, on_policy=on_policy)
        loss, parts = loss_of(config, (context, target, batch | {"step": jnp.asarray(step)}), draft)
        expected = (1 - alpha) * parts["next_item_loss"] + alpha * parts["align_loss"]
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("on_policy", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_no_gradient_reaches_the_teacher(world, on_policy):
    context, target, batch = world
    draft, config = init_params(MODEL, jax.random.key(2)), dataclasses.replace(CONFIG, on_policy=on_policy)
    grads = jax.grad(lambda t: compiled_loss(alignment(config), draft, t, context, batch, None)[0])(target)
    assert all(not bool(g.any()) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    "objective",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("tree_kd", "seq_kd")] + ["atspeed_s", "atspeed_r"],
)
def test_descent_aligns_the_draft(world, objective):
    config = dataclasses.replace(CONFIG, objective=objective, density_weight=0.0)
    values = descend(lambda params: loss_of(config, world, params)[0], init_params(MODEL, jax.random.key(3)))
    if objective == "seq_kd":
        least = np.log(4)  # four items per user cannot be had for less
        assert values[-1] - least < 0.4 * (values[0] - least)
    else:
        assert values[-1] < 0.3 * values[0]


def test_seq_kd_reads_the_lists_code_by_code(world):
    """Against one forward pass per listed item, without a tree."""
    _context, _target, batch = world
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    loss, parts = loss_of(dataclasses.replace(CONFIG, objective="seq_kd", alpha=0.5), world, draft)
    values = []
    for row, listed in enumerate(np.asarray(batch["list"])):
        for item in listed[listed >= 0]:
            whole = jnp.concatenate([batch["tokens"][row], jnp.asarray(IDS[item][:-1])])[None]
            log_probs = jax.nn.log_softmax(compiled_forward(MODEL, draft, whole, whole > 0)[0], -1)
            ends = [log_probs[batch["tokens"].shape[1] - 1 + level, IDS[item][level]] for level in range(3)]
            values.append(-sum(map(float, ends)))
    np.testing.assert_allclose(parts["align_loss"], np.mean(values), rtol=1e-4)
    np.testing.assert_allclose(loss, 0.5 * parts["align_loss"] + 0.5 * parts["next_item_loss"], rtol=1e-6)


def test_on_policy_rows_are_asked_about_the_drafts_own_beams(world):
    context, target, batch = world
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    prompt = Prompt(batch["tokens"], batch["valid"])
    own = beam_nodes(LlamaStep(MODEL), draft, context.trie, prompt, beams=4, score_norm="vocab")
    assert (own[:, :-1] != batch["beams"]).any()
    mine, _ = loss_of(CONFIG, (context, target, batch | {"beams": own[:, :1]}), draft)
    aligned = batch | {"beams": batch["beams"][:, :1]}
    stored = {"log_probs": jnp.full((6, 5, 4), -9.0)}  # wrong, so that reading it would show
    everything, _ = loss_of(dataclasses.replace(CONFIG, on_policy=1.0), (context, target, aligned | stored), draft)
    np.testing.assert_allclose(everything, mine, rtol=1e-5)

    def rows(batch, chosen):
        return {name: x[chosen] for name, x in batch.items()}

    half, _ = loss_of(dataclasses.replace(CONFIG, on_policy=1 / 3), (context, target, aligned), draft)
    first, _ = loss_of(CONFIG, (context, target, rows(batch | {"beams": own[:, :1]}, slice(2))), draft)
    rest, _ = loss_of(CONFIG, (context, target, rows(aligned, slice(2, None))), draft)
    np.testing.assert_allclose(half, (2 * first + 4 * rest) / 6, rtol=1e-5)


def test_on_policy_needs_an_objective_on_beams():
    with pytest.raises(ValueError, match=r"on_policy=0\.5 with objective='seq_kd'"):
        dataclasses.replace(CONFIG, objective="seq_kd", on_policy=0.5)


def test_coverage_adds_to_tree_kd_what_the_widths_miss(world):
    context, target, batch = world
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    config = dataclasses.replace(CONFIG, objective="coverage", coverage_weight=0.5, alpha=0.9)
    plain = loss_of(CONFIG, world, draft)[1]
    missed = []
    for widths in ((3, 4, 4), (3, 99, 99), (99, 99, 99)):
        loss, parts = compiled_loss(alignment(config, widths), draft, target, context, batch, None)
        np.testing.assert_allclose(parts["align_loss"], plain["align_loss"], rtol=1e-6)
        aligned = parts["align_loss"] + 0.5 * parts["coverage_loss"]
        np.testing.assert_allclose(loss, 0.1 * parts["next_item_loss"] + 0.9 * aligned, rtol=1e-6)
        missed.append(float(parts["coverage_loss"]))
    assert missed == sorted(missed, reverse=True)
    assert len(set(missed)) == 3
    assert missed[-1] == 0


def test_a_budget_that_reads_every_node_misses_what_the_widths_miss(world):
    context, target, batch = world
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    config = dataclasses.replace(CONFIG, objective="coverage")
    missed = []
    for budget in (None, 16, 6):
        within = dataclasses.replace(alignment(config, (3, 4, 8)), budget=budget)
        missed.append(float(compiled_loss(within, draft, target, context, batch, None)[1]["coverage_loss"]))
    assert missed[0] == missed[1] < missed[2]


def test_coverage_of_draws_is_that_of_one_noise_on_both_models(world, monkeypatch):
    context, target, batch = world
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    config = dataclasses.replace(CONFIG, objective="coverage_coupled")
    monkeypatch.setattr(coverage, "SOFTNESS", 1e-3)  # what is not below the threshold costs nothing

    @functools.partial(jax.jit, static_argnames="widths")
    def coverage_loss(student, key, widths):
        return align_loss(alignment(config, widths), student, target, context, batch, key)[1]["coverage_loss"]

    def missed(student, key, widths):
        return float(coverage_loss(student, jax.random.key(key), widths))

    assert missed(draft, 1, (3, 4, 4)) == missed(draft, 1, (3, 4, 4)) != missed(draft, 2, (3, 4, 4))
    assert missed(draft, 1, (3, 4, 4)) > missed(draft, 1, (99, 99, 99)) == 0
    for key in range(5):
        assert 0 <= missed(target, key, (4, 4, 4)) < 0.003, "a target's draws are all among its own"


@pytest.mark.parametrize("objective", ["sft", "word_kd"])
def test_objectives_on_histories_have_no_loss_on_a_tree(world, objective):
    config = dataclasses.replace(CONFIG, objective=objective)
    with pytest.raises(KeyError, match=objective):
        traced_loss(alignment(config), world[1], world[1], world[0], world[2], None)


@pytest.mark.parametrize("objective", losses.COVERAGE)
def test_ids_of_one_code_have_nothing_to_cover(world, objective):
    """Their tree is the root alone, where no width is told: the objective is TreeKD of it."""
    ids = np.arange(2, 9)[:, None]
    context = tree_context(build_trie(ids), ids)
    rows = {"beams": jnp.zeros((6, 0, 4), jnp.int32), "list": jnp.zeros((6, 4), jnp.int32)}
    own = context, world[1], world[2] | rows
    draft = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(2)))
    loss, parts = loss_of(dataclasses.replace(CONFIG, objective=objective), own, draft)
    assert parts["coverage_loss"] == 0
    np.testing.assert_allclose(loss, loss_of(CONFIG, own, draft)[0], rtol=1e-6)
    assert loss > 0.01


def test_coverage_needs_a_width_for_every_drafted_level(world):
    config = dataclasses.replace(CONFIG, objective="coverage")
    with pytest.raises(ValueError, match="zip"):
        traced_loss(alignment(config, (4,)), world[1], world[1], world[0], world[2], None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("coverage_weight", -1.0),
        ("density_weight", -1.0),
        ("alpha", 1.5),
        ("alpha_warmup", -1),
        ("temperature", 0.001),
        ("top_k", 0),
        ("on_policy", 2.0),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


@pytest.mark.slow
def test_the_references_objective_warns(world):
    with pytest.warns(UserWarning, match="gradient is zero almost everywhere"):
        config = dataclasses.replace(CONFIG, objective="reference_tv")
    grads = jax.grad(lambda draft: loss_of(config, world, draft)[0])(init_params(MODEL, jax.random.key(3)))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 1e-6
