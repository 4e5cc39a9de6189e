"""The alignment loss of a batch: teacher and student read the same tree once, an objective compares them node by
node."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.alignment import losses
from atspeed_jax.alignment.teacher import aligned_beams, settled_nodes
from atspeed_jax.alignment.tree import (
    TeacherTree,
    TreeContext,
    child_log_probs,
    listed_log_probs,
    path_scores,
    stored_log_probs,
    teacher_tree,
    tree_logits,
)
from atspeed_jax.decoding.base import Prompt, ScoreNorm
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.utils.ranges import Beams, Range, Share, Warmup, check_ranges

LossWeight = Annotated[float, Range(0, 1e6)]


@dataclasses.dataclass(frozen=True)
class AlignConfig:
    """What aligns the draft. objective: on the teacher's beam tree "tree_kd", "atspeed_s", "atspeed_r", "coverage" for
    strict verification, "coverage_coupled" for coupled, "seq_kd" or "reference_tv", the public code's, which learns
    nothing and warns of it (`align_loss`); on the users' own items "sft", "word_kd" or "tvd_kd"
    (`histories.history_loss`).

    alpha: its weight; 1 - alpha goes to the next item. temperature divides the logits of both models, at least 0.1.
    top_k: |S| of AtSpeed-S. density_weight: of its second term. coverage_weight: of `losses.coverage` beside TreeKD in
    `losses.COVERAGE`. score_norm: that of serving. on_policy: share of each batch whose beams are the student's own of
    that moment, which the teacher is asked about in the step. alpha_warmup: updates over which the weight rises from 0,
    linearly: total variation has next to no gradient where the models hardly overlap. Raises ValueError outside these
    ranges.
    """

    objective: losses.Objective
    alpha: Share
    temperature: Annotated[float, Range(0.1, 1e3, why="below 0.1 gradients vanish; use 1.0")]
    top_k: Beams
    density_weight: LossWeight
    coverage_weight: LossWeight
    score_norm: ScoreNorm
    on_policy: Share = 0.0
    alpha_warmup: Warmup = 0

    def __post_init__(self):
        check_ranges(self)
        if self.objective == "reference_tv":
            warnings.warn(
                "objective='reference_tv': at temperature 0.001 its gradient is zero almost everywhere, so the draft "
                "learns nothing from the teacher (atspeed_jax/decoding/ALGORITHM.md section 7); use 'atspeed_r'",
                stacklevel=2,
            )
        if self.on_policy and self.objective in (*losses.ON_HISTORIES, "seq_kd"):
            raise ValueError(
                f"on_policy={self.on_policy} with objective={self.objective!r}, which asks no teacher about beams: "
                "set on_policy=0, or take 'tree_kd', 'atspeed_s', 'atspeed_r', 'coverage' or 'coverage_coupled'"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The largest weight that each part of the loss, as `align_loss` and `history_loss` name them, ever has in
        it."""
        if self.objective == "sft":
            return {"next_item_loss": 1.0}
        next_item = 1.0 if self.alpha_warmup else 1 - self.alpha
        return {
            "next_item_loss": next_item,
            "align_loss": self.alpha,
            "coverage_loss": self.alpha * self.coverage_weight,
        }

    def mixed(self, next_item, objective, step):
        """(1 - alpha) * next_item + alpha * objective, with the alpha of this update (None: after the warm-up)."""
        alpha = self.alpha
        if self.alpha_warmup and step is not None:
            alpha = optax.linear_schedule(0.0, alpha, self.alpha_warmup)(step)
        return (1 - alpha) * next_item + alpha * objective


def align_loss(
    config: AlignConfig,
    draft: LlamaConfig,
    target: LlamaConfig,
    draft_params,
    target_params,
    context: TreeContext,
    batch,
    dropout_key,
    *,
    widths: tuple[int, ...] = (),
):
    """(1 - alpha) * cross-entropy of the next item + alpha * objective on the teacher's beam tree (ALGORITHM.md section
    7).

    batch: "tokens", "valid" [B, P], "beams" [B, L-2, K], "next_id" [B] (see `teacher_tree`), "list" [B, K], rows of the
    teacher's ids, -1 for none, for "seq_kd", and "log_probs" [B, 1 + (L-2) K, R], the teacher's stored
    log-probabilities; without them the teacher reads the tree here, in one forward pass, and needs nothing stored but
    beams. "step": updates done, for alpha's warm-up. widths: nodes drafted per level when serving
    (`base.resolve_widths`), for `losses.COVERAGE`. dropout_key: of the draft's dropout and, for "coverage_coupled", of
    the noise; else may be None. -> (loss, {"align_loss", "next_item_loss"}), both per node ("seq_kd": per item), and
    "coverage_loss", per beam.
    """

    def loss(batch):
        return _tree_loss(config, draft, target, draft_params, target_params, context, batch, dropout_key, widths)

    rows = batch["tokens"].shape[0]
    own = round(config.on_policy * rows)
    if own == 0:
        return loss(batch)
    first, rest = (
        {name: x[some] if x.ndim else x for name, x in batch.items()} for some in (slice(own), slice(own, None))
    )
    first = loss(_with_students_beams(config, draft, draft_params, context, first))
    if own == rows:
        return first
    return jax.tree.map(lambda a, b: (own * a + (rows - own) * b) / rows, first, loss(rest))


def beams_loss(config: AlignConfig, draft: LlamaConfig, target: LlamaConfig, widths: tuple[int, ...]):
    """`align_loss` for `fit`, whose `frozen` holds the "target"'s parameters and the tree "context"."""

    def loss(params, batch, key, frozen):
        models = config, draft, target, params, frozen["target"]
        return align_loss(*models, frozen["context"], batch, key, widths=widths)

    return loss


def _with_students_beams(config: AlignConfig, draft: LlamaConfig, params, context: TreeContext, batch) -> dict:
    """The batch with what the draft itself would find, and nothing stored about it."""
    prompt, beams = Prompt(batch["tokens"], batch["valid"]), batch["beams"].shape[2]
    frozen = jax.lax.stop_gradient(params)
    found = settled_nodes(LlamaStep(draft), frozen, context.trie, prompt, beams=beams, score_norm=config.score_norm)
    return {name: x for name, x in batch.items() if name != "log_probs"} | {"beams": aligned_beams(found)}


def _tree_loss(config, draft, target, draft_params, target_params, context, batch, dropout_key, widths):
    tree = teacher_tree(context, Prompt(batch["tokens"], batch["valid"]), batch["beams"], batch["next_id"])
    logits = tree_logits(draft, draft_params, tree, dropout_key)
    student = _log_probs(config, context, tree, logits)
    parts = {"next_item_loss": _next_item_loss(tree, logits)}
    if config.objective == "seq_kd":
        listed = listed_log_probs(context, tree.levels, [q for q, _ in student], batch["list"])
        loss = parts["align_loss"] = losses.seq_kd(listed, batch["list"] >= 0)
    else:
        if "log_probs" in batch:
            teacher = stored_log_probs(context, tree.levels, batch["log_probs"], config.score_norm)
        else:
            asked = jax.lax.stop_gradient(tree_logits(target, target_params, tree, None))
            teacher = _log_probs(config, context, tree, asked)
        found = [(p, q, exists) for (p, _), (q, exists) in zip(teacher, student, strict=True)]
        loss = losses.mean_over_tree([_node_loss(config, *level) for level in found], tree.is_beam)
        parts["align_loss"] = loss
        if config.objective in losses.COVERAGE:
            beams = batch["beams"].shape[2]
            parts["coverage_loss"] = _missed(config, context, tree, found, widths, beams, dropout_key)
            loss += config.coverage_weight * parts["coverage_loss"]
    return config.mixed(parts["next_item_loss"], loss, batch.get("step")), parts


def _next_item_loss(tree: TeacherTree, logits: list):
    totals = [
        losses.next_item_cross_entropy(own, tree.next_token[:, level], tree.is_next[level])
        for level, own in enumerate(logits)
    ]
    return sum(total for total, _ in totals) / jnp.maximum(sum(count for _, count in totals), 1)


def _missed(config, context: TreeContext, tree: TeacherTree, found: list, widths: tuple[int, ...], beams: int, key):
    """`losses.coverage` summed over the drafted levels, mean over the users; key: of the noise of draws.

    Ids of one code have no drafted level, so nothing is missed: their tree is a root that is the target's own choice.
    """
    if context.trie.length == 1:
        return jnp.zeros(())
    teacher = path_scores(context, tree.levels, [p for p, _, _ in found])
    student = path_scores(context, tree.levels, [q for _, q, _ in found])
    total = 0.0
    levels = zip(widths, teacher, student, found, tree.is_beam, strict=True)
    for level, (width, p, q, (_, _, exists), is_beam) in enumerate(levels):
        exists = exists[..., : p.shape[-1]] & is_beam[..., None]
        p, q, exists = (x.reshape(x.shape[0], -1) for x in (p, q, exists))
        if config.objective == "coverage_coupled":
            noise = jax.random.gumbel(jax.random.fold_in(key, level), p.shape)
            p, q = p + noise, q + noise
        total += losses.coverage(p, q, exists, top_k=beams, width=width).mean()
    return total


def _log_probs(config: AlignConfig, context: TreeContext, tree: TeacherTree, logits: list) -> list:
    return [
        child_log_probs(context, level, beams, own / config.temperature, config.score_norm)
        for level, (beams, own) in enumerate(zip(tree.levels, logits, strict=True))
    ]


def _node_loss(config: AlignConfig, teacher, student, exists):
    if config.objective == "atspeed_s":
        return losses.atspeed_s(teacher, student, exists, top_k=config.top_k, density_weight=config.density_weight)
    divergences = {"atspeed_r": losses.atspeed_r, "reference_tv": losses.reference_tv}
    divergences |= dict.fromkeys(("tree_kd", *losses.COVERAGE), losses.tree_kd)
    return divergences[config.objective](teacher, student, exists)
