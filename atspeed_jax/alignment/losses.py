"""Objectives that align a draft with its target, side by side.

Each one is a pure function of two distributions per tree node. p is the teacher's (the
target's) distribution of the next code, q the student's (the draft's). Both obey the
constraint of serving (`distributions.child_log_probs`). They are given as
log-probabilities [B, N, M] with a mask of the M entries that exist.

A divergence returns one value per node [B, N]; `mean_over_tree` gives every level the
same weight. `coverage.shortfall`, which reads a whole level at once, stands apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from atspeed_jax.shapes import Logits, NodeBool, NodeFloat

Objective = Literal[
    "sft",
    "word_kd",
    "tvd_kd",
    "seq_kd",
    "tree_kd",
    "atspeed_s",
    "atspeed_r",
    "reference_tv",
    "coverage",
    "coverage_coupled",
]
ON_GROUND_TRUTH = ("sft", "word_kd", "tvd_kd")  # on the users' own items (`alignment.ground_truth`)
COVERAGE = ("coverage", "coverage_coupled")
REFERENCE_TEMPERATURE = 0.001  # of `reference_tv`
Distribution = Float[Array, "B N M"]
Exists = Bool[Array, "B N M"]


def tree_kd(p: Distribution, q: Distribution, exists: Exists) -> NodeFloat:
    """Computes the forward KL divergence, sum_y p(y) (log p(y) - log q(y)).

    Source: distillation (Hinton et al. 2015) at every node of the teacher's beam tree
    (ours; decoding/ALGORITHM.md section 7).

    Args:
      p: log-probabilities of the teacher [B, N, M].
      q: log-probabilities of the student [B, N, M].
      exists: the entries that count [B, N, M].

    Returns:
      Nats per node [B, N].
    """
    return jnp.where(exists, jnp.exp(p) * (p - q), 0.0).sum(-1)


def atspeed_s(p: Distribution, q: Distribution, exists: Exists, *, top_k: int, density_weight: float) -> NodeFloat:
    """Computes the reverse KL over the student's top-K entries, and a density term.

    sum_{y in S} q(y) (log q(y) - log p(y)) + density_weight * p_(K) * H(q_S)

    S holds the K entries with the largest q. p_(K) is the teacher's probability of the
    student's K-th entry. H(q_S) is the entropy of q renormalized over S. The mass
    outside S counts as one more entry of the sum, so that the sum is a divergence.
    Source: AtSpeed-S (the paper, section 4.2); the entry for the mass outside S is
      ours.

    Args:
      p: log-probabilities of the teacher [B, N, M].
      q: log-probabilities of the student [B, N, M].
      exists: the entries that count [B, N, M].
      top_k: K. At a node with fewer entries S holds all of them, without a density
        term.
      density_weight: weight of the density term.

    Returns:
      Nats per node [B, N].
    """
    k = min(top_k, q.shape[-1])
    # Which entries are in S is a choice, so it has no gradient.
    _, index = jax.lax.top_k(jax.lax.stop_gradient(jnp.where(exists, q, -jnp.inf)), k)
    inside = jnp.take_along_axis(exists, index, -1)
    p_top, q_top = (jnp.where(inside, jnp.take_along_axis(x, index, -1), 0.0) for x in (p, q))
    p_in, q_in = (jnp.where(inside, jnp.exp(x), 0.0) for x in (p_top, q_top))
    # Clipped: rounding may leave less than nothing outside S.
    p_tail, q_tail = (jnp.clip(1.0 - x.sum(-1), 1e-6, 1.0) for x in (p_in, q_in))
    divergence = (q_in * (q_top - p_top)).sum(-1) + q_tail * (jnp.log(q_tail) - jnp.log(p_tail))
    share = q_in / jnp.maximum(q_in.sum(-1, keepdims=True), 1e-9)
    entropy = -jnp.where(inside, share * jnp.log(jnp.maximum(share, 1e-9)), 0.0).sum(-1)
    full = (exists.sum(-1) >= top_k) & (k == top_k)
    return divergence + density_weight * jnp.where(full, p_in[..., -1] * entropy, 0.0)


def atspeed_r(p: Distribution, q: Distribution, exists: Exists) -> NodeFloat:
    """Computes the total variation, 1/2 sum_y |p(y) - q(y)|.

    Relaxed verification accepts a draw of the student with probability 1 - TV. The
    gradient is small where the two distributions hardly overlap, so start from a draft
    that was trained on next items (SFT).
    Source: AtSpeed-R (the paper, section 4.3).

    Args:
      p: log-probabilities of the teacher [B, N, M].
      q: log-probabilities of the student [B, N, M].
      exists: the entries that count [B, N, M].

    Returns:
      A value from 0 to 1 per node [B, N].
    """
    return jnp.where(exists, jnp.abs(jnp.exp(p) - jnp.exp(q)), 0.0).sum(-1) / 2


def reference_tv(p: Distribution, q: Distribution, exists: Exists) -> NodeFloat:
    """Computes `atspeed_r` as the paper's public code does, at temperature 0.001.

    Both distributions are then one-hot but for ties, so the gradient is exactly zero
    almost everywhere and the draft learns nothing. The function exists to show that.
    Source: the public code (decoding/ALGORITHM.md section 7).

    Args:
      p: log-probabilities of the teacher [B, N, M].
      q: log-probabilities of the student [B, N, M].
      exists: the entries that count [B, N, M].

    Returns:
      A value from 0 to 1 per node [B, N].
    """
    p, q = (jax.nn.log_softmax(jnp.where(exists, x, -1e4) / REFERENCE_TEMPERATURE, -1) for x in (p, q))
    return atspeed_r(p, q, exists)


def seq_kd(q: Sequence[Float[Array, "B K"]], counted: Bool[Array, "B K"]) -> Float[Array, ""]:
    """Computes the cross-entropy of the teacher's lists.

    The loss of an item is -log q, summed over its codes. The teacher's items count as
    true next items. A code that several items share counts once for each.
    Source: sequence-level distillation (Kim and Rush 2016, section 3.2); a baseline of
    the paper's public code.

    Args:
      q: per drafted level, the student's log-probability of the next code of each of
        the K items [B, K].
      counted: the places of the lists that hold an item [B, K].

    Returns:
      Nats per item, mean over the counted items; a scalar.
    """
    total = jnp.where(counted, -sum(q), 0.0).sum()
    return total / jnp.maximum(counted.sum(), 1)


def next_item_cross_entropy(logits: Logits, target, at: NodeBool) -> tuple[Array, Array]:
    """Computes the cross-entropy of the true next code over the whole vocabulary.

    Source: the usual loss of a language model.

    Args:
      logits: [B, N, V].
      target: the true next code as a token [B].
      at: the nodes that are prefixes of the true next item [B, N].

    Returns:
      Sum in nats and number of marked nodes, both over the batch and scalar.
    """
    log_prob = jax.nn.log_softmax(logits, -1)
    chosen = jnp.take_along_axis(log_prob, jnp.broadcast_to(target[:, None, None], (*logits.shape[:2], 1)), -1)[..., 0]
    return -jnp.where(at, chosen, 0.0).sum(), at.sum()


def mean_over_tree(values: Sequence[Float[Array, "B _"]], counted: Sequence[Bool[Array, "B _"]]) -> Array:
    """Averages over the nodes of each level, then over the levels.

    Levels have very different numbers of nodes (1 at the root, K elsewhere); a plain
    mean would hardly count the root.

    Args:
      values: per level, a value per node [B, N].
      counted: per level, the nodes that count [B, N]; a level without any is left out.

    Returns:
      A scalar.
    """
    means = [
        jnp.where(mask, value, 0.0).sum() / jnp.maximum(mask.sum(), 1)
        for value, mask in zip(values, counted, strict=True)
    ]
    present = [mask.any() for mask in counted]
    return sum(means) / jnp.maximum(sum(present), 1)
