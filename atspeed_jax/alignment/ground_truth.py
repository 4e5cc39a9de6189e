"""Objectives on the users' own items: SFT, WordKD and TVDKD.

These are the baselines of the paper's public code. Every code of the items counts. The
teacher's beams are not read.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.alignment import losses
from atspeed_jax.alignment.align import AlignConfig, Alignment
from atspeed_jax.data.prompts import next_codes
from atspeed_jax.models.llama import LlamaConfig, forward

DIVERGENCES = {"word_kd": losses.tree_kd, "tvd_kd": losses.atspeed_r}


def ground_truth_loss(alignment: Alignment, draft_params, target_params, batch, dropout_key):
    """Mixes the next-code loss with the divergence from the teacher.

    (1 - alpha) * cross-entropy of the next code + alpha * divergence

    Both are means over the codes and cover the whole vocabulary. "word_kd" is forward
    KL (word-level distillation, Kim and Rush 2016, section 3.1), "tvd_kd" is total
    variation, "sft" is the cross-entropy alone, whatever alpha is.
    Source: decoding/ALGORITHM.md section 7.

    Args:
      alignment: what is compared; widths are not read.
      draft_params: parameters of the student.
      target_params: parameters of the teacher; not read by "sft".
      batch: "tokens", "valid" and "predict" [B, T] (`data.batches.train_batches`);
        optional "step" as in `align_loss`.
      dropout_key: key of the draft's dropout; None turns dropout off.

    Returns:
      The loss, and its parts "next_item_loss" and (but for "sft") "align_loss", in nats
      per code.
    """
    config = alignment.config
    logits = forward(alignment.draft, draft_params, batch["tokens"], batch["valid"], dropout_key=dropout_key)
    code, counted = next_codes(batch)

    def mean(values):
        return jnp.where(counted, values, 0.0).sum() / jnp.maximum(counted.sum(), 1)

    next_item = mean(optax.softmax_cross_entropy_with_integer_labels(logits, code))
    if config.objective == "sft":
        return next_item, {"next_item_loss": next_item}
    teacher = forward(alignment.target, target_params, batch["tokens"], batch["valid"], dropout_key=None)
    teacher = jax.lax.stop_gradient(teacher)
    p, q = (jax.nn.log_softmax(x / config.temperature, -1) for x in (teacher, logits))
    aligned = mean(DIVERGENCES[config.objective](p, q, jnp.ones(p.shape, bool)))
    parts = {"align_loss": aligned, "next_item_loss": next_item}
    return config.mix(next_item, aligned, batch.get("step")), parts


def make_ground_truth_loss(config: AlignConfig, draft: LlamaConfig, target: LlamaConfig):
    """Makes `ground_truth_loss` a loss for `fit`.

    `frozen` holds the parameters of the "target".
    """
    alignment = Alignment(config, draft, target)

    def loss(params, batch, key, frozen):
        return ground_truth_loss(alignment, params, frozen["target"], batch, key)

    return loss
