"""Distributions of the next code at the nodes of a teacher's tree."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from atspeed_jax.alignment.tree import TreeContext, is_parent, path_to
from atspeed_jax.decoding.base import ScoreNorm
from atspeed_jax.decoding.beams import LOWEST, Beams
from atspeed_jax.decoding.children import score_children
from atspeed_jax.shapes import ChildBool, ChildFloat, Logits, NodeBool


def child_log_probs(
    context: TreeContext, level: int, beams: Beams, logits: Logits, norm: ScoreNorm
) -> tuple[Float[Array, "B N M"], Bool[Array, "B N M"]]:
    """Computes the distributions of the next code under the constraint of serving.

    Under "trie" norm the children are renormalized. Under "vocab" norm the children
    keep their log-softmax over the vocabulary, and a last entry, the bucket, holds the
    probability of all other tokens: that mass moves beams against each other
    (decoding/ALGORITHM.md section 7).

    Args:
      context: the catalog.
      level: of the nodes.
      beams: the nodes [B, N].
      logits: their logits [B, N, V].
      norm: score norm of serving.

    Returns:
      Log-probabilities, and which entries exist: both [B, N, R], under "vocab" norm
      [B, N, R + 1].
    """
    children = score_children(context.trie, level, beams, logits, norm="vocab")
    return constrained(children.log_prob, children.exists, beams.valid, norm)


def path_scores(
    context: TreeContext, levels: Sequence[Beams], log_probs: Sequence[Array]
) -> list[Float[Array, "B _ _"]]:
    """Sums log-probabilities along the path of every child of every node.

    Args:
      context: the catalog.
      levels: per level, the nodes [B, N].
      log_probs: per level, the log-probabilities of `child_log_probs`.

    Returns:
      Per level, cumulative scores [B, N, R]; entries that do not exist mean nothing.
    """
    scores: list[Float[Array, "B _ _"]] = []
    for level, beams in enumerate(levels):
        edge, _ = context.trie.edges(level, beams.node)
        # Without the bucket: it is no child, so no path goes through it.
        step = log_probs[level][..., : edge.shape[-1]]
        if level == 0:
            scores.append(step)
            continue
        shallower = levels[level - 1]
        parent = is_parent(context, shallower, beams.node, level).argmax(-1)
        # Children of a node have consecutive numbers, so the difference from the first
        # one is the place of this node in its parent's row of scores.
        first = context.trie.row_start[level - 1][jnp.take_along_axis(shallower.node, parent, 1)]
        row = scores[-1].shape[-1]
        # Clipped: an invalid node has any parent, and its place must not leave the row.
        place = parent * row + jnp.clip(beams.node - first, 0, row - 1)
        before = jnp.take_along_axis(scores[-1].reshape(step.shape[0], -1), place, 1)
        scores.append(before[..., None] + step)
    return scores


def listed_log_probs(
    context: TreeContext, levels: Sequence[Beams], log_probs: Sequence[Array], ids: Int[Array, "B K"]
) -> list[Float[Array, "B K"]]:
    """Reads the log-probability of each code of some ids off the tree.

    Args:
      context: the catalog.
      levels: per level, the nodes [B, N]. They must hold the prefixes of the ids, as
        the teacher's beams hold those of its list.
      log_probs: per level, the log-probabilities of `child_log_probs`.
      ids: rows of the sorted ids, -1 for none.

    Returns:
      Per level l, the log-probability of code l + 1 of each id [B, K]. The entry of an
      id that is none, or whose prefix is not in the tree, means nothing.
    """
    path = path_to(context, ids)
    found = []
    for level, beams in enumerate(levels):
        parent = path[level - 1] if level else jnp.zeros_like(ids)
        place = ((beams.node[:, None] == parent[..., None]) & beams.valid[:, None]).argmax(-1)
        # The number of a child within its parent's row (see `path_scores`).
        child = path[level] - context.trie.row_start[level][jnp.maximum(parent, 0)]
        row = jnp.take_along_axis(log_probs[level], place[..., None], 1)
        child = jnp.clip(child, 0, row.shape[-1] - 1)
        found.append(jnp.take_along_axis(row, child[..., None], -1)[..., 0])
    return found


def constrained(
    log_prob: ChildFloat, exists: ChildBool, valid: NodeBool, norm: ScoreNorm
) -> tuple[Float[Array, "B N M"], Bool[Array, "B N M"]]:
    """Turns the children's log-softmax over the vocabulary into `child_log_probs`.

    Args:
      log_prob: log-softmax over the vocabulary [B, N, R].
      exists: the children that exist [B, N, R].
      valid: the nodes that exist [B, N].
      norm: score norm of serving.

    Returns:
      As `child_log_probs`.
    """
    if norm == "trie":
        return log_prob - jax.nn.logsumexp(jnp.where(exists, log_prob, LOWEST), -1, keepdims=True), exists
    mass = jnp.where(exists, jnp.exp(log_prob), 0.0).sum(-1, keepdims=True)
    # Clipped: rounding may leave less than nothing, whose log is not finite.
    rest = jnp.log(jnp.clip(1.0 - mass, 1e-6, 1.0))
    return jnp.concatenate([log_prob, rest], -1), jnp.concatenate([exists, valid[..., None]], -1)


def to_float16(log_probs: np.ndarray) -> np.ndarray:
    """Rounds log-probabilities to float16 for storage.

    A masked code has the least float32, which would become -inf; it is raised to the
    least float16 instead.
    """
    return np.maximum(log_probs, np.finfo(np.float16).min).astype(np.float16)


def stored_log_probs(
    context: TreeContext, levels: Sequence[Beams], stored: Float[Array, "B M R"], norm: ScoreNorm
) -> list[tuple[Float[Array, "B _ _"], Bool[Array, "B _ _"]]]:
    """Computes `child_log_probs` of every level from what the teacher stored.

    Args:
      context: the catalog.
      levels: per level, the nodes [B, N_l] of a teacher tree.
      stored: log-softmax over the vocabulary [B, 1 + (levels - 1) K, R]: the root's
        row, then the rows of the K beams of depth 1, 2, ... (`teacher_beams.beam_log_probs`).
      norm: score norm of serving.

    Returns:
      Per level, as `child_log_probs`. No entry exists at the node of the true next
      item: the teacher stored nothing about it.
    """
    found, start = [], 0
    for level, beams in enumerate(levels):
        _, exists = context.trie.edges(level, beams.node)
        # The last node of a level is that of the true next item; the root level has
        # none.
        taught = beams.count - (level > 0)
        rows = stored[:, start : start + taught, : exists.shape[-1]].astype(jnp.float32)
        # The stored width is that of the catalog's widest row; the trie's is rounded
        # up.
        rows = jnp.pad(rows, ((0, 0), (0, beams.count - taught), (0, exists.shape[-1] - rows.shape[-1])))
        exists &= beams.valid[..., None] & (jnp.arange(beams.count) < taught)[:, None]
        found.append(constrained(jnp.where(exists, rows, LOWEST), exists, beams.valid, norm))
        start += taught
    return found
