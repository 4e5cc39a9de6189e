"""Objectives at every code of the users' own items, where the teacher's beams are never looked at: SFT, and the
reference's baselines WordKD and TVDKD."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.alignment import losses
from atspeed_jax.alignment.align import AlignConfig
from atspeed_jax.data.prompts import next_codes
from atspeed_jax.models.llama import LlamaConfig, forward

DIVERGENCES = {"word_kd": losses.tree_kd, "tvd_kd": losses.atspeed_r}


def history_loss(
    config: AlignConfig, draft: LlamaConfig, target: LlamaConfig, draft_params, target_params, batch, dropout_key
):
    """(1 - alpha) * cross-entropy of the next code + alpha * divergence from the teacher there.

    Source: ALGORITHM.md section 7.

    WordKD: forward KL; TVDKD: total variation; both over the whole vocabulary, mean over the codes. "sft" is the
    cross-entropy alone, whatever alpha. batch: "tokens", "valid", "predict" [B, T] (`data.batches.train_batches`),
    "step" as in `align_loss`. -> (loss, {"align_loss", "next_item_loss"}), nats per code.
    """
    logits = forward(draft, draft_params, batch["tokens"], batch["valid"], dropout_key=dropout_key)
    code, counted = next_codes(batch)

    def mean(values):
        return jnp.where(counted, values, 0.0).sum() / jnp.maximum(counted.sum(), 1)

    next_item = mean(optax.softmax_cross_entropy_with_integer_labels(logits, code))
    if config.objective == "sft":
        return next_item, {"next_item_loss": next_item}
    teacher = jax.lax.stop_gradient(forward(target, target_params, batch["tokens"], batch["valid"], dropout_key=None))
    p, q = (jax.nn.log_softmax(x / config.temperature, -1) for x in (teacher, logits))
    aligned = mean(DIVERGENCES[config.objective](p, q, jnp.ones(p.shape, bool)))
    parts = {"align_loss": aligned, "next_item_loss": next_item}
    return config.mixed(next_item, aligned, batch.get("step")), parts


def histories_loss(config: AlignConfig, draft: LlamaConfig, target: LlamaConfig):
    """`history_loss` for `fit`, whose `frozen` holds the "target"'s parameters."""

    def loss(params, batch, key, frozen):
        return history_loss(config, draft, target, params, frozen["target"], batch, key)

    return loss
