"""The alignment loss of a batch: teacher and student read the same tree once, an objective compares them node by
node."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from atspeed_jax.alignment import losses
from atspeed_jax.alignment.tree import TeacherTree, TreeContext, child_log_probs, teacher_tree
from atspeed_jax.decoding.base import Prompt, ScoreNorm
from atspeed_jax.models.llama import LlamaConfig, apply_masked


@dataclasses.dataclass(frozen=True)
class AlignConfig:
    """What aligns the draft. objective: "tree_kd" or "atspeed_s" ("sft" is the next-item loss alone).

    alpha: its weight; 1 - alpha goes to the next item. temperature divides the logits of both models, at least 0.1.
    top_k: |S| of AtSpeed-S. density_weight: of its second term. score_norm: that of serving. Raises ValueError outside
    these ranges.
    """

    objective: losses.Objective
    alpha: float
    temperature: float
    top_k: int
    density_weight: float
    score_norm: ScoreNorm

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: expected a weight in [0, 1]")
        if self.temperature < 0.1:
            raise ValueError(
                f"temperature={self.temperature}: below 0.1 gradients vanish (ALGORITHM section 7); use 1.0"
            )
        if self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: expected at least 1")


def align_loss(
    config: AlignConfig,
    draft: LlamaConfig,
    target: LlamaConfig,
    draft_params,
    target_params,
    context: TreeContext,
    batch,
    dropout_key,
):
    """(1 - alpha) * cross-entropy of the next item + alpha * objective on the teacher's beam tree (ALGORITHM section
    7).

    batch: "tokens", "valid" [B, P], "beams" [B, L-1, K], "next_id" [B] (see `teacher_tree`). Teacher logits are
    recomputed here in one tree forward; nothing but beams is ever stored. -> (loss, {"align_loss", "next_item_loss"}),
    both per node.
    """
    tree = teacher_tree(context, Prompt(batch["tokens"], batch["valid"]), batch["beams"], batch["next_id"])
    student = tree_logits(draft, draft_params, tree, dropout_key)
    totals = [
        losses.next_item_cross_entropy(logits, tree.next_token[:, level], tree.is_next[level])
        for level, logits in enumerate(student)
    ]
    next_item = sum(total for total, _ in totals) / jnp.maximum(sum(count for _, count in totals), 1)
    if config.objective == "sft":
        return next_item, {"next_item_loss": next_item}
    teacher = jax.lax.stop_gradient(tree_logits(target, target_params, tree, None))
    aligned = losses.mean_over_tree(
        [_node_loss(config, context, tree, level, teacher[level], student[level]) for level in range(len(tree.levels))],
        tree.is_beam,
    )
    loss = (1 - config.alpha) * next_item + config.alpha * aligned
    return loss, {"align_loss": aligned, "next_item_loss": next_item}


def tree_logits(model: LlamaConfig, params, tree: TeacherTree, dropout_key) -> list:
    """A model's logits [B, N_l, V] at every node, level by level, by one forward pass."""
    inputs = tree.inputs
    return tree.split(
        apply_masked(
            model, params, inputs.tokens, inputs.positions, inputs.mask, n_out=tree.n_out, dropout_key=dropout_key
        )
    )


def _node_loss(config: AlignConfig, context: TreeContext, tree: TeacherTree, level: int, teacher, student):
    beams = tree.levels[level]
    p, exists = child_log_probs(context, level, beams, teacher / config.temperature, config.score_norm)
    q, _ = child_log_probs(context, level, beams, student / config.temperature, config.score_norm)
    if config.objective == "tree_kd":
        return losses.tree_kd(p, q, exists)
    return losses.atspeed_s(p, q, exists, top_k=config.top_k, density_weight=config.density_weight)
