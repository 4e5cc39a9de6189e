"""How far a draft is from covering the K beams of its target (ours).

A divergence asks a draft for exactness everywhere. Verification asks only that the K
beams of each level are among the nodes that the target reads. `shortfall` measures how
far they are from that, below a threshold that widths (`width_threshold`) or a node
budget (`budget_thresholds`) set.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from atspeed_jax.decoding.budget import threshold_rank

SOFTNESS = 0.5  # nats of cumulative score: width of the soft threshold of `shortfall`
Scores = Float[Array, "B M"]
Exists = Bool[Array, "B M"]
PerUser = Float[Array, "B 1"]
LevelScores = Float[Array, "B _"]  # "_", since M differs between levels
LevelExists = Bool[Array, "B _"]


def shortfall(p: Scores, q: Scores, exists: Exists, theta: PerUser, *, top_k: int) -> Float[Array, " B"]:
    """Measures how far the teacher's K beams of a level score below theta.

    mean over y in T of s * log(1 + exp((theta - q(y)) / s)), with s = SOFTNESS

    T holds the teacher's K best nodes. Strict verification accepts a level if every y
    of T scores above theta, the best score of a node that the target does not read. If
    the errors of q follow a logistic law of scale s, the value is -(s / K) * log of the
    probability of that. A beam far above theta adds almost nothing, while a divergence
    also asks for exactness where verification does not look.

    With the same Gumbel noise on p and q ("coverage_coupled") T is a draw of the
    teacher, the one that coupled verification compares (`SearchConfig.mode`).
    Source: ours (decoding/ALGORITHM.md section 7).

    Args:
      p: cumulative scores of the level's nodes under the teacher [B, M].
      q: cumulative scores of the same nodes under the student [B, M].
      exists: the nodes that exist [B, M].
      theta: of each user, without a gradient; -inf if the target reads every node.
      top_k: K.

    Returns:
      Nats per beam [B].
    """
    wanted = exists & (p >= kth_largest(jnp.where(exists, p, -jnp.inf), top_k))
    theta = jnp.maximum(theta, -1e4)  # finite, and below every score
    below = jnp.where(wanted, theta - q, -1e4) / SOFTNESS
    return SOFTNESS * jax.nn.softplus(below).sum(-1) / jnp.maximum(wanted.sum(-1), 1)


def width_threshold(q: Scores, exists: Exists, width: int) -> PerUser:
    """Finds the best score outside the `width` best nodes of a level; -inf for none."""
    return kth_largest(jax.lax.stop_gradient(jnp.where(exists, q, -jnp.inf)), width + 1)


def budget_thresholds(
    q: Sequence[LevelScores], exists: Sequence[LevelExists], *, top_k: int, widths: Sequence[int], budget: int
) -> list[PerUser]:
    """Finds the scores that nodes must exceed to be among the M that a target call reads.

    These are the scores at which the lead of a node (`decoding.budget.lead`) is that of
    the best node that is not read. Parents, which hold back the lead of a child in
    decoding, are left out here: the loss asks for them at their level.

    Args:
      q: per level, cumulative scores of the nodes under the student [B, M].
      exists: per level, the nodes that exist [B, M].
      top_k: K.
      widths: drafted nodes per level.
      budget: M.

    Returns:
      Per level, the threshold of each user, without a gradient; -inf where every node
      is read.
    """
    outside, middles, leads = [], [], []
    for depth, (scores, there, width) in enumerate(zip(q, exists, widths, strict=True), 1):
        scores = jax.lax.stop_gradient(jnp.where(there, scores, -jnp.inf))
        theta, middle = (kth_largest(scores, rank) for rank in (width + 1, min(width, threshold_rank(top_k))))
        # A smaller level is compared with its last node; one without nodes asks nothing.
        least = jnp.where(there, scores, jnp.inf).min(-1, keepdims=True)
        middle = jnp.where(middle > -jnp.inf, middle, jnp.where(there.any(-1, keepdims=True), least, 0.0))
        outside.append(theta)
        middles.append(middle)
        leads.append(jnp.where(scores > theta, (scores - middle) / depth, -jnp.inf))
    last = kth_largest(jnp.concatenate(leads, -1), budget + 1)
    pairs = enumerate(zip(outside, middles, strict=True), 1)
    return [jnp.maximum(theta, middle + depth * last) for depth, (theta, middle) in pairs]


def kth_largest(scores: Scores, k: int) -> PerUser:
    """Finds the k-th largest of M scores, exactly in float32, without a gradient.

    `top_k` would sort thousands of scores to get one, which is slow on a CPU. This
    function finds the 32 bits of the answer one after another: a bit is set if at least
    k scores are as large as the number with this bit.

    Args:
      scores: [B, M].
      k: at least 1.

    Returns:
      [B, 1]; -inf if there are fewer than k scores, or the k-th is -inf.
    """
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    # Unsigned integers in the order of the floats: flip the sign bit of positive
    # numbers, all bits of negative ones.
    ordered = jnp.where(bits < sign, bits | sign, ~bits)

    def set_bit(place, found):
        trial = found | (sign >> place.astype(jnp.uint32))
        return jnp.where((ordered >= trial).sum(-1, keepdims=True) >= k, trial, found)

    found = jax.lax.fori_loop(0, 32, set_bit, jnp.zeros((scores.shape[0], 1), jnp.uint32))
    score = jax.lax.bitcast_convert_type(jnp.where(found < sign, ~found, found ^ sign), jnp.float32)
    return jnp.where(found == 0, -jnp.inf, score)
