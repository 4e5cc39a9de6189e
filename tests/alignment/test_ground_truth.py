"""Objectives at the users' own codes: WordKD, TVDKD and SFT against NumPy, and that they teach."""

import dataclasses

import jax
import numpy as np
import pytest

from atspeed_jax.alignment.align import AlignConfig, Alignment
from atspeed_jax.alignment.ground_truth import ground_truth_loss
from atspeed_jax.alignment.losses import ON_GROUND_TRUTH
from atspeed_jax.models.llama import LlamaConfig, forward, init_params
from descent import descend

MODEL = LlamaConfig(14, 16, 32, 1, 2, 2, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)
CONFIG = AlignConfig("word_kd", 0.7, 2.0, top_k=3, density_weight=1.0, coverage_weight=1.0, score_norm="vocab")

compiled_loss = jax.jit(ground_truth_loss, static_argnums=0)


def loss_of(config, *arguments):
    return compiled_loss(Alignment(config, MODEL, MODEL), *arguments)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    tokens = np.where(np.arange(7) >= rng.integers(0, 4, (6, 1)), rng.integers(2, 14, (6, 7)), 0).astype(np.int32)
    first = (tokens > 0).argmax(1)
    tokens[np.arange(6), first] = 1
    batch = {"tokens": tokens, "valid": tokens > 0, "predict": tokens > 1}
    target, draft = (jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(seed))) for seed in (1, 2))
    return target, draft, batch


@pytest.mark.parametrize("objective", ON_GROUND_TRUTH)
def test_by_numpy(world, objective):
    target, draft, batch = world
    config = dataclasses.replace(CONFIG, objective=objective)
    logits = [np.asarray(forward(MODEL, params, batch["tokens"], batch["valid"]), np.float64) for params in world[:2]]

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = (softmax(x / 2.0) for x in logits)
    truths, differences = [], []
    for row in range(6):
        for place in range(6):
            if batch["predict"][row, place + 1]:
                truths.append(-np.log(softmax(logits[1][row, place])[batch["tokens"][row, place + 1]]))
                teacher, student = p[row, place], q[row, place]
                divergence = (teacher * np.log(teacher / student)).sum()
                differences.append(divergence if objective == "word_kd" else np.abs(teacher - student).sum() / 2)
    loss, parts = loss_of(config, draft, target, batch, None)
    np.testing.assert_allclose(parts["next_item_loss"], np.mean(truths), rtol=1e-5)
    if objective == "sft":
        assert loss == parts["next_item_loss"]
        assert "align_loss" not in parts
    else:
        np.testing.assert_allclose(parts["align_loss"], np.mean(differences), rtol=1e-5)
        np.testing.assert_allclose(loss, 0.3 * np.mean(truths) + 0.7 * np.mean(differences), rtol=1e-5)


def test_alpha_rises_during_its_warm_up(world):
    target, draft, batch = world
    config = dataclasses.replace(CONFIG, alpha_warmup=4)
    loss, parts = loss_of(config, draft, target, batch | {"step": np.asarray(2)}, None)
    np.testing.assert_allclose(loss, 0.65 * parts["next_item_loss"] + 0.35 * parts["align_loss"], rtol=1e-6)


@pytest.mark.parametrize("objective", ["word_kd", "tvd_kd"])
def test_the_target_itself_is_perfectly_aligned(world, objective):
    target, _, batch = world
    config = dataclasses.replace(CONFIG, objective=objective, alpha=1.0)
    loss, _ = loss_of(config, target, target, batch, None)
    np.testing.assert_allclose(loss, 0.0, atol=1e-5)
    grads = jax.grad(lambda t: ground_truth_loss(Alignment(config, MODEL, MODEL), world[1], t, batch, None)[0])(target)
    assert all(not bool(g.any()) for g in jax.tree.leaves(grads)), "no gradient reaches the teacher"


@pytest.mark.parametrize("objective", ["word_kd", "tvd_kd"])
def test_descent_brings_the_draft_to_the_target(world, objective):
    target, params, batch = world
    config = dataclasses.replace(CONFIG, objective=objective, alpha=1.0)
    values = descend(lambda p: loss_of(config, p, target, batch, None)[0], params)
    assert values[-1] < 0.7 * values[0]  # total variation falls slowly, to 0.45 to 0.5 of it by rounding alone
