"""Objectives that align a draft with its target, side by side: pure functions of two distributions per tree node.

Notation: p the teacher's (target's) next-code distribution at a node, q the student's (draft's), both under the
serving constraint (`alignment.tree.child_log_probs`), given as log-probabilities [B, N, M] with a mask of the M
entries that exist. Each divergence gives one value per node [B, N], and `mean_over_tree` weighs every level alike;
`coverage` looks at a whole level at once.
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
ON_HISTORIES = ("sft", "word_kd", "tvd_kd")  # learn from the users' own items (`alignment.histories`)
COVERAGE = ("coverage", "coverage_coupled")
REFERENCE_TEMPERATURE = 0.001  # of `reference_tv`
SOFTNESS = 0.5  # nats of cumulative score over which `coverage` tells beams inside from beams outside
Distribution = Float[Array, "B N M"]
Exists = Bool[Array, "B N M"]


def tree_kd(p: Distribution, q: Distribution, exists: Exists) -> NodeFloat:
    """Forward KL, sum_y p(y) (log p(y) - log q(y)) over the children [B, N] (TreeKD, ALGORITHM.md section 7)."""
    return jnp.where(exists, jnp.exp(p) * (p - q), 0.0).sum(-1)


def atspeed_s(p: Distribution, q: Distribution, exists: Exists, *, top_k: int, density_weight: float) -> NodeFloat:
    """Reverse KL over the student's top-K children plus density regularisation [B, N] (AtSpeed-S; paper section 4.2).

    sum_{y in S} q(y) (log q(y) - log p(y)), the mass outside S kept as one bucket so that it stays a divergence, plus
    density_weight * p_(K) * H(q_S), where S holds the student's top-K entries, p_(K) is the teacher's probability of
    the student's K-th, and H the entropy of q renormalised over S. A node with fewer than K entries has S = all of
    them and no density term.
    """
    k = min(top_k, q.shape[-1])
    _, index = jax.lax.top_k(jax.lax.stop_gradient(jnp.where(exists, q, -jnp.inf)), k)
    inside = jnp.take_along_axis(exists, index, -1)
    p_top, q_top = (jnp.where(inside, jnp.take_along_axis(x, index, -1), 0.0) for x in (p, q))
    p_in, q_in = (jnp.where(inside, jnp.exp(x), 0.0) for x in (p_top, q_top))
    p_tail, q_tail = (jnp.clip(1.0 - x.sum(-1), 1e-6, 1.0) for x in (p_in, q_in))
    divergence = (q_in * (q_top - p_top)).sum(-1) + q_tail * (jnp.log(q_tail) - jnp.log(p_tail))
    share = q_in / jnp.maximum(q_in.sum(-1, keepdims=True), 1e-9)
    entropy = -jnp.where(inside, share * jnp.log(jnp.maximum(share, 1e-9)), 0.0).sum(-1)
    full = (exists.sum(-1) >= top_k) & (k == top_k)
    return divergence + density_weight * jnp.where(full, p_in[..., -1] * entropy, 0.0)


def atspeed_r(p: Distribution, q: Distribution, exists: Exists) -> NodeFloat:
    """Total variation, 1/2 sum_y |p(y) - q(y)| [B, N] (AtSpeed-R; paper section 4.3).

    A draw of the student is accepted in relaxed verification with probability 1 - TV. Where the two hardly overlap the
    gradient is small: begin with a draft that has learnt something (SFT).
    """
    return jnp.where(exists, jnp.abs(jnp.exp(p) - jnp.exp(q)), 0.0).sum(-1) / 2


def reference_tv(p: Distribution, q: Distribution, exists: Exists) -> NodeFloat:
    """`atspeed_r` as the public reference has it, [B, N]: of both distributions sharpened by temperature 0.001.

    Both are then one-hot but for ties, so the gradient is exactly zero almost everywhere and nothing is learnt
    (ALGORITHM.md section 7). Here to show that.
    """
    p, q = (jax.nn.log_softmax(jnp.where(exists, x, -1e4) / REFERENCE_TEMPERATURE, -1) for x in (p, q))
    return atspeed_r(p, q, exists)


def coverage(
    p: Float[Array, "B M"], q: Float[Array, "B M"], exists: Bool[Array, "B M"], *, top_k: int, width: int
) -> Float[Array, " B"]:
    """How far the teacher's top-K of a level are from the student's `width` best, per beam [B] (ours).

    p and q are cumulative scores of the level's nodes, as beams have them. With T the teacher's top-K and theta the
    student's best score outside its `width` best (no gradient), mean over y in T of s * log(1 + exp((theta - q(y)) /
    s)), s = SOFTNESS: a level is accepted when every y of T lies above theta, and with errors of logistic law this is
    s / K times -log of that probability. A beam well inside adds nothing, unlike in a divergence, which strives for
    exactness where verification does not look. A level no wider than `width` ("all", too) misses nothing: 0.

    With the same Gumbel noise on p and q ("coverage_coupled") T is a draw of the teacher's, as coupled verification
    compares it (`SearchConfig.mode`).
    """
    wanted = exists & (p >= kth_largest(jnp.where(exists, p, -jnp.inf), top_k))
    theta = kth_largest(jax.lax.stop_gradient(jnp.where(exists, q, -jnp.inf)), width + 1)
    theta = jnp.maximum(theta, -1e4)  # finite, and below every score
    below = jnp.where(wanted, theta - q, -1e4) / SOFTNESS
    return SOFTNESS * jax.nn.softplus(below).sum(-1) / jnp.maximum(wanted.sum(-1), 1)


def kth_largest(scores: Float[Array, "B M"], k: int) -> Float[Array, "B 1"]:
    """The k-th largest of M scores, -inf if there are fewer; exact for float32, no gradient.

    Bisects the 32 bits of the answer by counting. `top_k` sorts thousands of children for one of them, which is slow
    on a CPU.
    """
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    ordered = jnp.where(bits < sign, bits | sign, ~bits)  # as unsigned integers they compare as the floats do

    def set_bit(place, found):
        trial = found | (sign >> place.astype(jnp.uint32))
        return jnp.where((ordered >= trial).sum(-1, keepdims=True) >= k, trial, found)

    found = jax.lax.fori_loop(0, 32, set_bit, jnp.zeros((scores.shape[0], 1), jnp.uint32))
    score = jax.lax.bitcast_convert_type(jnp.where(found < sign, ~found, found ^ sign), jnp.float32)
    return jnp.where(found == 0, -jnp.inf, score)


def seq_kd(q: Sequence[Float[Array, "B K"]], counted: Bool[Array, "B K"]) -> Float[Array, ""]:
    """Cross-entropy of the teacher's lists, -log q(y) summed over an item's codes, mean over the items (SeqKD,
    sequence-level distillation: the teacher's beams are taken for truth; ALGORITHM.md section 7).

    q: per drafted level, what the student thinks of the code that each of the K items goes on with. counted: places of
    the lists that hold an item. A code that several items share counts once for each.
    """
    total = jnp.where(counted, -sum(q), 0.0).sum()
    return total / jnp.maximum(counted.sum(), 1)


def next_item_cross_entropy(logits: Logits, target, at: NodeBool) -> tuple[Array, Array]:
    """Cross-entropy over the vocabulary of the true next code `target` [B] at the nodes marked `at` [B, N].

    -> (sum, count) over the batch, both scalars.
    """
    log_prob = jax.nn.log_softmax(logits, -1)
    chosen = jnp.take_along_axis(log_prob, jnp.broadcast_to(target[:, None, None], (*logits.shape[:2], 1)), -1)[..., 0]
    return -jnp.where(at, chosen, 0.0).sum(), at.sum()


def mean_over_tree(values: Sequence[NodeFloat], counted: Sequence[NodeBool]) -> Array:
    """Mean over the counted nodes of each level, then over the levels that have any: every level weighs alike."""
    means = [
        jnp.where(mask, value, 0.0).sum() / jnp.maximum(mask.sum(), 1)
        for value, mask in zip(values, counted, strict=True)
    ]
    present = [mask.any() for mask in counted]
    return sum(means) / jnp.maximum(sum(present), 1)
