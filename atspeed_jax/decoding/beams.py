"""Beams of one level as flat arrays, and the verbs on them: root, children, best, place, inputs, finalise.

Nodes of a level stay in trie order with the invalid ones last, and are sorted by score only at the very end. Then
`top_k`, which prefers the lower index among equals, is the tie rule (lexicographically smaller id first) at every
level.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from atspeed_jax.decoding.base import Layout, Mode, Prompt, Result, RoundOne, ScoreNorm
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import (
    NodeBool,
    NodeFloat,
    NodeInt,
    NodeLevels,
    RowInt,
)

UNPLACED = -1  # path entry of a level that has no slot yet
LOWEST = float(np.finfo(np.float32).min)  # the least score, whatever is summed; validity itself is always the bool


class Beams(struct.PyTreeNode):
    """N prefixes of l codes per user.

    tokens [B, N, L]: codes so far as tokens (0 beyond l). path [B, N, L]: cache slots of levels 0..l, own slot
    included once placed. score [B, N]: log-probability. node [B, N]: trie node of depth l. valid [B, N]. perturbed [B,
    N]: score with noise, by which beams are chosen in the modes that draw; None where the score itself decides.
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

    def resize(self, count: int) -> Beams:
        """The first `count` beams, or padded with invalid ones."""
        missing = count - self.count
        if missing <= 0:
            return jax.tree.map(lambda x: x[:, :count], self)
        perturbed = None if self.perturbed is None else LOWEST
        filler = Beams(tokens=0, path=UNPLACED, score=LOWEST, node=0, valid=False, perturbed=perturbed)
        return jax.tree.map(
            lambda x, f: jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2), constant_values=f), self, filler
        )


def gather_nodes(tree, index: NodeInt):
    """The nodes at index [B, M] of a pytree of arrays [B, N, ...]."""
    return jax.tree.map(lambda x: jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), 1), tree)


def merge_nodes(order: NodeInt, nodes, others):
    """Two equal pytrees [B, N, ...] and [B, M, ...] as one, in the order [B, N + M]."""
    return gather_nodes(jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), nodes, others), order)


def trie_order(*parts: Beams) -> NodeInt:
    """The order that puts all their nodes in trie order, invalid last."""
    node = jnp.concatenate([jnp.where(part.valid, part.node, jnp.iinfo(jnp.int32).max) for part in parts], 1)
    return jnp.argsort(node, axis=1, stable=True)


def largest(score: Float[Array, "B M"], valid: Bool[Array, "B M"], count: int) -> tuple[NodeInt, NodeBool]:
    """Where the `count` largest of M scores are, or all M, largest first, the first of equals before the others; and
    which of these are valid.

    A place that is not ranks below every one that is, whatever its finite score. NaN, which `not_finite` tells, ranks
    first.
    """
    rank = jnp.where(valid, jnp.maximum(score, LOWEST), -jnp.inf)
    value, index = jax.lax.top_k(rank, min(count, rank.shape[1]))
    return index, value != -jnp.inf


def root_beams(prompt: Prompt, length: int, mode: Mode = "strict") -> Beams:
    """The empty prefix of each user: its slot is the last prompt token's."""
    batch, width = prompt.tokens.shape
    levels = jnp.zeros((batch, 1, length), jnp.int32)
    return Beams(
        tokens=levels,
        path=(levels + UNPLACED).at[..., 0].set(width - 1),
        score=jnp.zeros((batch, 1)),
        node=jnp.zeros((batch, 1), jnp.int32),
        valid=jnp.ones((batch, 1), bool),
        perturbed=None if mode == "strict" else jnp.zeros((batch, 1)),
    )


def is_finished(trie: ItemTrie, level: int, beams: Beams, norm: ScoreNorm) -> NodeBool:
    """Beams of `level` that a model has nothing to say about: one item is left below, its probability given the prefix
    is 1.

    Under "vocab" norm none is: other codes take their share of probability. Source: ALGORITHM section 5, fact b.
    """
    if norm == "vocab":
        return jnp.zeros_like(beams.valid)
    return beams.valid & (trie.ids_below(level, beams.node) == 1)


def assign_slots(beams: Beams, level: int, layout: Layout) -> Beams:
    """Beams of `level` >= 1 put into that level's first slots."""
    slots = layout.offset[level] + jnp.arange(beams.count, dtype=jnp.int32)
    return beams.replace(path=beams.path.at[..., level].set(slots))


def to_result(
    beams: Beams, target_calls: RowInt, given_up, faulty: RowInt, rounds, round_one: RoundOne | None
) -> Result:
    """Beams of depth L, best first.

    The sort is stable, so equals stay in lexicographic order.
    """
    key = beams.score if beams.perturbed is None else beams.perturbed
    beams = gather_nodes(beams, jnp.argsort(jnp.where(beams.valid, -key, jnp.inf), axis=1, stable=True))
    tokens = jnp.where(beams.valid[..., None], beams.tokens, 0)  # an invalid place holds the codes of some prefix
    return Result(
        beams.node,
        tokens,
        beams.score,
        beams.valid,
        target_calls,
        given_up,
        faulty,
        rounds,
        round_one,
        beams.perturbed,
    )
