"""The alignment loss of a batch.

Teacher and student read the same tree, each in one forward pass. An objective
(`losses.py`) compares their distributions node by node.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.alignment import coverage, losses
from atspeed_jax.alignment.distributions import child_log_probs, listed_log_probs, path_scores, stored_log_probs
from atspeed_jax.alignment.teacher_beams import aligned_beams, beam_nodes
from atspeed_jax.alignment.tree import TeacherTree, TreeContext, teacher_tree, tree_logits
from atspeed_jax.decoding.base import Prompt, ScoreNorm
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.utils.ranges import Beams, Range, Share, Warmup, check_ranges

LossWeight = Annotated[float, Range(0, 1e6)]


@dataclasses.dataclass(frozen=True)
class AlignConfig:
    """How a draft is aligned with its target.

    Attributes:
      objective: on the teacher's beam tree (`align_loss`): "tree_kd", "atspeed_s",
        "atspeed_r", "coverage" for strict verification, "coverage_coupled" for coupled
        verification (both within the widths and the budget of serving), "seq_kd", or
        "reference_tv", which learns nothing and warns. On the users' own items
        (`ground_truth.ground_truth_loss`): "sft", "word_kd" or "tvd_kd".
      alpha: weight of the objective; 1 - alpha is the weight of the next item.
      temperature: divides the logits of both models.
      top_k: size of the set S of "atspeed_s".
      density_weight: weight of the density term of "atspeed_s".
      coverage_weight: weight of `coverage.shortfall` beside TreeKD in the objectives of
        `losses.COVERAGE`.
      score_norm: that of serving (`SearchConfig`).
      on_policy: share of each batch whose beams the student finds itself, with its
        parameters of that step; the teacher scores them in the step.
      alpha_warmup: updates over which alpha rises linearly from 0. Total variation has
        almost no gradient where the two models hardly overlap.

    Raises:
      ValueError: a number is outside its range, or on_policy is set for an objective
        that compares no beams.
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
        if self.on_policy and self.objective in (*losses.ON_GROUND_TRUTH, "seq_kd"):
            raise ValueError(
                f"on_policy={self.on_policy} with objective={self.objective!r}, which does not compare beams with the "
                "teacher: set on_policy=0, or objective='tree_kd', 'atspeed_s', 'atspeed_r', 'coverage' or "
                "'coverage_coupled'"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The largest weight of each part of the loss over the whole training.

        The names are those of `align_loss` and `ground_truth_loss`.
        """
        if self.objective == "sft":
            return {"next_item_loss": 1.0}
        next_item = 1.0 if self.alpha_warmup else 1 - self.alpha
        return {
            "next_item_loss": next_item,
            "align_loss": self.alpha,
            "coverage_loss": self.alpha * self.coverage_weight,
        }

    def mix(self, next_item, objective, step):
        """Mixes two losses: (1 - alpha) * next_item + alpha * objective.

        Args:
          next_item: loss of the next item.
          objective: loss of the alignment.
          step: updates done, for the warm-up of alpha; None for the final alpha.
        """
        alpha: Any = self.alpha
        if self.alpha_warmup and step is not None:
            alpha = optax.linear_schedule(0.0, alpha, self.alpha_warmup)(step)
        return (1 - alpha) * next_item + alpha * objective


@dataclasses.dataclass(frozen=True)
class Alignment:
    """The static part of an alignment, hashable.

    Attributes:
      config: objective and weights.
      draft: the student.
      target: the teacher.
      widths: drafted nodes per level when serving (`config.resolve_widths`), for the
        objectives of `losses.COVERAGE`.
      budget: nodes of these that a target call reads when serving; None for all.
    """

    config: AlignConfig
    draft: LlamaConfig
    target: LlamaConfig
    widths: tuple[int, ...] = ()
    budget: int | None = None


def align_loss(alignment: Alignment, draft_params, target_params, context: TreeContext, batch, dropout_key):
    """Mixes the next-item loss with the objective on the teacher's beam tree.

    (1 - alpha) * cross-entropy of the next item + alpha * objective

    Source: decoding/ALGORITHM.md section 7.

    Args:
      alignment: what is compared.
      draft_params: parameters of the student.
      target_params: parameters of the teacher; not read if the batch has "log_probs"
        and no row is on-policy.
      context: the catalog.
      batch: "tokens" and "valid" [B, P]; "beams" [B, L-2, K] and "next_id" [B] (see
        `teacher_tree`); for "seq_kd" "list" [B, K], rows of the teacher's ids, -1 for
        none; optional "log_probs" [B, 1 + (L-2) K, R], stored by the teacher. Without
        them the teacher reads the tree here. Optional "step": updates done, for the
        warm-up of alpha.
      dropout_key: key of the draft's dropout and of the noise of "coverage_coupled";
        may be None otherwise.

    Returns:
      The loss, and its parts: "next_item_loss" and "align_loss" per node ("seq_kd": per
      item), and "coverage_loss" per beam.
    """

    def loss(batch):
        return _tree_loss(alignment, draft_params, target_params, context, batch, dropout_key)

    rows = batch["tokens"].shape[0]
    on_policy = round(alignment.config.on_policy * rows)
    if on_policy == 0:
        return loss(batch)
    # "step" is a scalar; everything else has one row per user.
    first, rest = (
        {name: x[part] if x.ndim else x for name, x in batch.items()}
        for part in (slice(on_policy), slice(on_policy, None))
    )
    first = loss(_with_students_beams(alignment, draft_params, context, first))
    if on_policy == rows:
        return first
    return jax.tree.map(lambda a, b: (on_policy * a + (rows - on_policy) * b) / rows, first, loss(rest))


def make_align_loss(
    config: AlignConfig, draft: LlamaConfig, target: LlamaConfig, widths: tuple[int, ...], budget: int | None = None
):
    """Makes `align_loss` a loss for `fit`; the arguments are the fields of `Alignment`.

    `frozen` holds the parameters of the "target" and the tree's "context".
    """
    alignment = Alignment(config, draft, target, widths, budget)

    def loss(params, batch, key, frozen):
        return align_loss(alignment, params, frozen["target"], frozen["context"], batch, key)

    return loss


def _with_students_beams(alignment: Alignment, params, context: TreeContext, batch) -> dict:
    """Replaces the teacher's beams by those that the student finds.

    Stored log-probabilities belong to the teacher's beams, so they are dropped.
    """
    prompt, beams = Prompt(batch["tokens"], batch["valid"]), batch["beams"].shape[2]
    frozen = jax.lax.stop_gradient(params)  # which beams are found is not differentiable
    norm = alignment.config.score_norm
    found = beam_nodes(LlamaStep(alignment.draft), frozen, context.trie, prompt, beams=beams, score_norm=norm)
    return {name: x for name, x in batch.items() if name != "log_probs"} | {"beams": aligned_beams(found)}


def _tree_loss(alignment: Alignment, draft_params, target_params, context: TreeContext, batch, dropout_key):
    """`align_loss` of rows whose beams are given."""
    config = alignment.config
    tree = teacher_tree(context, Prompt(batch["tokens"], batch["valid"]), batch["beams"], batch["next_id"])
    logits = tree_logits(alignment.draft, draft_params, tree, dropout_key)
    student = _log_probs(config, context, tree, logits)
    parts: dict[str, Any] = {"next_item_loss": _next_item_loss(tree, logits)}
    if config.objective == "seq_kd":
        listed = listed_log_probs(context, tree.levels, [q for q, _ in student], batch["list"])
        loss = parts["align_loss"] = losses.seq_kd(listed, batch["list"] >= 0)
    else:
        if "log_probs" in batch:
            teacher = stored_log_probs(context, tree.levels, batch["log_probs"], config.score_norm)
        else:
            teacher_logits = jax.lax.stop_gradient(tree_logits(alignment.target, target_params, tree, None))
            teacher = _log_probs(config, context, tree, teacher_logits)
        compared = [(p, q, exists) for (p, _), (q, exists) in zip(teacher, student, strict=True)]
        loss = losses.mean_over_tree([_node_loss(config, *level) for level in compared], tree.is_beam)
        parts["align_loss"] = loss
        if config.objective in losses.COVERAGE:
            beams = batch["beams"].shape[2]
            parts["coverage_loss"] = _coverage_loss(alignment, context, tree, compared, beams, dropout_key)
            loss += config.coverage_weight * parts["coverage_loss"]
    return config.mix(parts["next_item_loss"], loss, batch.get("step")), parts


def _next_item_loss(tree: TeacherTree, logits: list):
    """Mean cross-entropy of the true next code at the nodes of the true next item."""
    totals = [
        losses.next_item_cross_entropy(level_logits, tree.next_token[:, level], tree.is_next[level])
        for level, level_logits in enumerate(logits)
    ]
    return sum(total for total, _ in totals) / jnp.maximum(sum(count for _, count in totals), 1)


def _coverage_loss(alignment: Alignment, context: TreeContext, tree: TeacherTree, compared: list, beams: int, key):
    """Sums `coverage.shortfall` over the drafted levels; mean over the users.

    Args:
      compared: per level, log-probabilities of teacher and student [B, N, M], and which
        exist.
      beams: K.
      key: key of the noise of "coverage_coupled".
    """
    # Ids of one code have no drafted level, so no beam can be missed.
    if context.trie.length == 1:
        return jnp.zeros(())
    teacher = path_scores(context, tree.levels, [p for p, _, _ in compared])
    student = path_scores(context, tree.levels, [q for _, q, _ in compared])
    levels = []
    for level, (p, q, (_, _, exists), is_beam) in enumerate(zip(teacher, student, compared, tree.is_beam, strict=True)):
        # Without the bucket of other tokens, and without the node of the true next
        # item, which is no beam when serving.
        exists = exists[..., : p.shape[-1]] & is_beam[..., None]
        p, q, exists = (x.reshape(x.shape[0], -1) for x in (p, q, exists))
        if alignment.config.objective == "coverage_coupled":
            # Coupled verification draws with one noise for both models.
            noise = jax.random.gumbel(jax.random.fold_in(key, level), p.shape)
            p, q = p + noise, q + noise
        levels.append((p, q, exists))
    thetas = _thresholds(alignment, [(q, exists) for _, q, exists in levels], beams)
    every = zip(levels, thetas, strict=True)
    return sum(coverage.shortfall(p, q, exists, theta, top_k=beams).mean() for (p, q, exists), theta in every)


def _thresholds(alignment: Alignment, levels: list, beams: int) -> list:
    """Scores that a node of each level must exceed for a target call to read it.

    Args:
      levels: per level, cumulative scores of the nodes under the student, and which
        nodes exist.
      beams: K.
    """
    widths = alignment.widths
    if alignment.budget is None:
        pairs = zip(levels, widths, strict=True)
        return [coverage.width_threshold(scores, exists, width) for (scores, exists), width in pairs]
    scores, exists = zip(*levels, strict=True)
    return coverage.budget_thresholds(scores, exists, top_k=beams, widths=widths, budget=alignment.budget)


def _log_probs(config: AlignConfig, context: TreeContext, tree: TeacherTree, logits: list) -> list:
    """`child_log_probs` of every level, at the temperature of the config."""
    return [
        child_log_probs(context, level, beams, level_logits / config.temperature, config.score_norm)
        for level, (beams, level_logits) in enumerate(zip(tree.levels, logits, strict=True))
    ]


def _node_loss(config: AlignConfig, teacher, student, exists):
    """The objective at every node of a level [B, N]."""
    if config.objective == "atspeed_s":
        return losses.atspeed_s(teacher, student, exists, top_k=config.top_k, density_weight=config.density_weight)
    divergences = {"atspeed_r": losses.atspeed_r, "reference_tv": losses.reference_tv}
    divergences |= dict.fromkeys(("tree_kd", *losses.COVERAGE), losses.tree_kd)
    return divergences[config.objective](teacher, student, exists)
