"""What runs on an accelerator lowers for one here: decoders, and the steps of training and alignment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.alignment.align import AlignConfig, Alignment, align_loss
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.optim import OptimConfig, make_optimizer
from atspeed_jax.training.step import make_train_step
from devices import whole_mesh

PLATFORMS = ("tpu", "cuda")
MODEL = LlamaConfig(14, 16, 32, 2, 2, 2, 8, 10_000.0, 1e-6, True, 0.1, "bfloat16", True)
IDS = np.unique(np.random.default_rng(1).integers(0, 4, (25, 3)), axis=0) + 2 + 4 * np.arange(3)
TRIE = build_trie(IDS)
PARAMS = param_shapes(MODEL)
OPTIM = OptimConfig(
    learning_rate=1e-3, warmup_steps=1, weight_decay=0.1, clip_norm=1.0, b1=0.9, b2=0.99, average=0.9, steps=9
)


def shape(*sizes, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def lowered(function, *arguments):
    """The exported program; raises if an operation does not exist on a platform, or anything calls the host."""
    exported = jax.export.export(function, platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    text = exported.mlir_module()
    assert "callback" not in text
    assert len(text) > 10_000
    return exported


def prompt(keys=None):
    return Prompt(shape(4, 9), shape(4, 9, dtype=bool), keys)


@pytest.mark.parametrize(
    ("mode", "norm"),
    [
        ("strict", "vocab"),
        ("stochastic", "trie"),
        pytest.param("relaxed", "vocab", marks=pytest.mark.slow),
        pytest.param("coupled", "vocab", marks=pytest.mark.slow),
    ],
)
def test_the_decoders(mode, norm):
    keys = None if mode == "strict" else user_keys(0, np.arange(4))
    step, config = LlamaStep(MODEL), SearchConfig((4, 6), 2, norm, beams=3, mode=mode)
    how = {"beams": 3, "score_norm": norm, "mode": mode}
    plain = jax.jit(lambda params, trie, prompt: beam_search(step, params, trie, prompt, **how))
    assert lowered(plain, PARAMS, TRIE, prompt(keys))
    drafter = ModelDrafter(step)
    ours = jax.jit(
        lambda params, draft, trie, prompt: speculative_beam_search(
            step, params, drafter, draft, trie=trie, prompt=prompt, config=config
        )
    )
    assert lowered(ours, PARAMS, PARAMS, TRIE, prompt(keys))


def state_shapes():
    optimizer = make_optimizer(OPTIM)
    return {
        "params": PARAMS,
        "opt_state": jax.eval_shape(optimizer.init, PARAMS),
        "step": shape(),
        "key": jax.random.key(0),
        "trained": PARAMS,
    }


def test_a_training_step():
    batch = {"tokens": shape(8, 13), "valid": shape(8, 13, dtype=bool), "predict": shape(8, 13, dtype=bool)}
    step = make_train_step(training_loss(MODEL, 3, 0.5), OPTIM, whole_mesh())
    assert lowered(step, state_shapes(), batch)


@pytest.mark.parametrize("objective", ["coverage", "atspeed_s", "atspeed_r"])
def test_an_alignment_step(objective):
    config = AlignConfig(
        objective, alpha=0.9, temperature=1.0, top_k=3, density_weight=1.0, coverage_weight=1.0, score_norm="vocab"
    )
    batch = {"tokens": shape(8, 9), "valid": shape(8, 9, dtype=bool), "beams": shape(8, 1, 4), "next_id": shape(8)}
    context = tree_context(TRIE, IDS)
    loss = functools.partial(align_loss, Alignment(config, MODEL, MODEL, (4, 6)))

    def both(params, batch, key):
        return loss(params, params, context, batch, key)

    step = make_train_step(both, OPTIM, whole_mesh())
    assert lowered(step, state_shapes(), batch)
