"""Beams of one level as flat arrays, and what is done with them.

Nodes of a level stay in trie order, the invalid ones last, and are sorted by score only
at the very end. `top_k` prefers the lower index among equals. So among equal scores the
lexicographically smaller id wins, at every level and in every decoder.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

from atspeed_jax.decoding.base import Layout, Prompt, Result, RoundOne, ScoreNorm
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import NodeBool, NodeFloat, NodeInt, NodeLevels, RowInt

UNPLACED = -1  # path entry of a level that has no slot yet
LOWEST = float(np.finfo(np.float32).min)  # the least score of a valid beam, finite so that 0 * LOWEST is 0


class Beams(struct.PyTreeNode):
    """N prefixes of l codes per user.

    tokens [B, N, L]: the codes as tokens, 0 beyond l.
    path [B, N, L]: cache slots of levels 0..l; `UNPLACED` until `assign_slots`.
    score [B, N]: log-probability of the prefix.
    node [B, N]: trie node of depth l.
    valid [B, N]: whether the prefix exists; never read off a score.
    perturbed [B, N]: score with noise, by which the modes that draw select; else None.
    """

    tokens: NodeLevels
    path: NodeLevels
    score: NodeFloat
    node: NodeInt
    valid: NodeBool
    perturbed: NodeFloat | None = None

    @property
    def count(self) -> int:
        return self.score.shape[1]

    @property
    def key(self) -> NodeFloat:
        """The score that beams are ranked by."""
        return self.score if self.perturbed is None else self.perturbed

    def resize(self, count: int) -> Beams:
        """Cuts to the first `count` beams, or pads with invalid ones."""
        missing = count - self.count
        if missing <= 0:
            return jax.tree.map(lambda x: x[:, :count], self)

        def pad(x: Array, filler: float) -> Array:
            return jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2), constant_values=filler)

        return Beams(
            tokens=pad(self.tokens, 0),
            path=pad(self.path, UNPLACED),
            score=pad(self.score, LOWEST),
            node=pad(self.node, 0),
            valid=pad(self.valid, False),
            perturbed=None if self.perturbed is None else pad(self.perturbed, LOWEST),
        )


class Frontier(struct.PyTreeNode):
    """Where each user stands: the settled beams and their level.

    beams: [B, K] settled beams, each row at its level; in round 1 the root [B, 1].
    level [B]: level of each row, 0..L; at L the items are found.
    """

    beams: Beams
    level: RowInt


def gather_nodes(tree, index: NodeInt):
    """Gathers the nodes at index [B, M] of a pytree of arrays [B, N, ...]."""
    return jax.tree.map(lambda x: jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), 1), tree)


def merge_nodes(order: NodeInt, nodes, others):
    """Merges pytrees of arrays [B, N, ...] and [B, M, ...], in order [B, N + M]."""
    return gather_nodes(jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), nodes, others), order)


def trie_order(*parts: Beams) -> NodeInt:
    """Returns the order that puts the nodes of all parts in trie order, invalid last."""
    # Nodes are numbered in trie order; the stable sort keeps invalid ones in their
    # order.
    node = jnp.concatenate([jnp.where(part.valid, part.node, jnp.iinfo(jnp.int32).max) for part in parts], 1)
    return jnp.argsort(node, axis=1, stable=True)


def largest(score: Float[Array, "B M"], valid: Bool[Array, "B M"], count: int) -> tuple[NodeInt, NodeBool]:
    """Finds the `count` largest of M scores.

    Args:
      score: [B, M]. NaN ranks first, so that `children.not_finite` sees it.
      valid: [B, M]. An invalid place ranks below every valid one, whatever its score.
      count: how many to find.

    Returns:
      (index [B, C], valid [B, C]), C = min(count, M), the largest first, the first of
      equals before the others.
    """
    rank = jnp.where(valid, jnp.maximum(score, LOWEST), -jnp.inf)
    value, index = jax.lax.top_k(rank, min(count, rank.shape[1]))
    return index, value != -jnp.inf


def root_beams(prompt: Prompt, length: int, *, draws: bool = False) -> Beams:
    """Makes the empty prefix of each user [B, 1], in the slot of the last prompt token.

    Args:
      prompt: B users.
      length: L, codes of an id.
      draws: whether beams carry a perturbed score (`Selection.draws`).
    """
    batch, width = prompt.tokens.shape
    levels = jnp.zeros((batch, 1, length), jnp.int32)
    return Beams(
        tokens=levels,
        path=(levels + UNPLACED).at[..., 0].set(width - 1),
        score=jnp.zeros((batch, 1)),
        node=jnp.zeros((batch, 1), jnp.int32),
        valid=jnp.ones((batch, 1), bool),
        perturbed=jnp.zeros((batch, 1)) if draws else None,
    )


def is_finished(trie: ItemTrie, level: int, beams: Beams, norm: ScoreNorm) -> NodeBool:
    """Finds the beams of `level` with one item left below, whose probability is then 1.

    A model has nothing to say about such a beam. Under "vocab" norm no beam is
    finished: other codes take their share of probability (ALGORITHM.md section 5).
    """
    if norm == "vocab":
        return jnp.zeros_like(beams.valid)
    return beams.valid & (trie.ids_below(level, beams.node) == 1)


def assign_slots(beams: Beams, level: int, layout: Layout) -> Beams:
    """Puts beams of `level` >= 1 into the first slots of that level."""
    slots = layout.offset[level] + jnp.arange(beams.count, dtype=jnp.int32)
    return beams.replace(path=beams.path.at[..., level].set(slots))


def to_result(
    beams: Beams,
    *,
    target_calls: RowInt,
    given_up: Float[Array, " B"],
    faulty: RowInt,
    rounds: Int[Array, ""],
    round_one: RoundOne | None,
) -> Result:
    """Sorts beams of depth L by their key, best first.

    The sort is stable, so equals stay in lexicographic order. The other arguments are
    fields of `Result`.
    """
    # Beams are in trie order here, so among equals the smaller id stays first.
    order = jnp.argsort(jnp.where(beams.valid, -beams.key, jnp.inf), axis=1, stable=True)
    beams = gather_nodes(beams, order)
    return Result(
        ids=beams.node,
        tokens=jnp.where(beams.valid[..., None], beams.tokens, 0),  # an invalid place holds some prefix
        score=beams.score,
        valid=beams.valid,
        target_calls=target_calls,
        given_up=given_up,
        faulty=faulty,
        rounds=rounds,
        round_one=round_one,
        perturbed=beams.perturbed,
    )
