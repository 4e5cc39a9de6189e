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
    ChildBool,
    ChildFloat,
    ChildInt,
    Logits,
    NodeBool,
    NodeFloat,
    NodeInt,
    NodeLevels,
    RowBool,
    RowInt,
    SlotMask,
    Tokens,
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

    def take(self, index: NodeInt) -> Beams:
        """The beams at index [B, M]."""
        return take_nodes(self, index)

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


class Children(struct.PyTreeNode):
    """All trie children of N nodes: edge [B, N, R] (also the child's node number), token, log_prob given the parent,
    exists; perturbed as in `Beams`."""

    edge: ChildInt
    token: ChildInt
    log_prob: ChildFloat
    exists: ChildBool
    perturbed: ChildFloat | None = None

    def total(self, beams: Beams) -> ChildFloat:
        """Cumulative scores, given the parents' own; a sum below `LOWEST` is that."""
        return jnp.where(self.exists, jnp.maximum(beams.score[..., None] + self.log_prob, LOWEST), LOWEST)


class StepInput(struct.PyTreeNode):
    """What one model call reads: tokens, positions, slots [B, T], and what each token sees."""

    tokens: Tokens
    positions: Tokens
    slots: Tokens
    mask: SlotMask


def take_nodes(tree, index: NodeInt):
    """The nodes at index [B, M] of a pytree of arrays [B, N, ...]."""
    return jax.tree.map(lambda x: jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), 1), tree)


def root(prompt: Prompt, length: int, mode: Mode = "strict") -> Beams:
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


def children_of(
    trie: ItemTrie, level: int, beams: Beams, logits: Logits, norm: ScoreNorm, temperature: float = 1.0
) -> Children:
    """Reads each node's trie children and scores them: log-softmax over the vocabulary, or over the children alone.

    Finite logits of any size give finite scores. A logit that is not, or normalising by one, gives NaN. The one child
    of a `finished` node has probability 1, whatever the logits are.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    edge, exists = trie.edges(level, beams.node)
    exists &= beams.valid[..., None]
    token = jnp.where(exists, trie.child_token(level, edge), 0)
    logit = jnp.take_along_axis(logits, token, -1)  # NaN for a token that the vocabulary lacks
    rivals = logits if norm == "vocab" else jnp.where(exists, logit, -jnp.inf)
    top = jax.lax.stop_gradient(rivals.max(-1, keepdims=True))
    total = jnp.log(jnp.exp((rivals - top) / temperature).sum(-1, keepdims=True))
    log_prob = jnp.maximum((logit - top) / temperature - total, LOWEST)
    log_prob = jnp.where(jnp.isfinite(logit) & jnp.isfinite(top), log_prob, jnp.nan)  # seen by not_finite
    if norm == "trie":
        log_prob = jnp.where(finished(trie, level, beams, norm)[..., None], 0.0, log_prob)
    return Children(edge, token, jnp.where(exists, log_prob, LOWEST), exists)


def best(trie: ItemTrie, level: int, beams: Beams, children: Children, count: int) -> Beams:
    """The `count` best children of nodes of `level` by cumulative (or perturbed) score, in trie order, invalid last."""
    key = children.total(beams) if children.perturbed is None else children.perturbed
    index, found = largest(*(x.reshape(x.shape[0], -1) for x in (key, children.exists)), count)
    return take_children(trie, level, beams, children, index, found).resize(count)


def largest(score: Float[Array, "B M"], valid: Bool[Array, "B M"], count: int) -> tuple[NodeInt, NodeBool]:
    """Where the `count` largest of M scores are, or all M, largest first, the first of equals before the others; and
    which of these are valid.

    A place that is not ranks below every one that is, whatever its finite score. NaN, which `not_finite` tells, ranks
    first.
    """
    rank = jnp.where(valid, jnp.maximum(score, LOWEST), -jnp.inf)
    value, index = jax.lax.top_k(rank, min(count, rank.shape[1]))
    return index, value != -jnp.inf


def take_children(
    trie: ItemTrie, level: int, beams: Beams, children: Children, index: NodeInt, found: NodeBool
) -> Beams:
    """The children at flat positions index [B, M] where found [B, M], in trie order, invalid last.

    Parents are in trie order and children in code order, so the flat index is the trie order and sorting it restores
    it. Tokens are read from the trie again: `children.token` would have to be kept whole for these few.
    """
    batch, _, row = children.edge.shape
    total = children.total(beams)
    candidates = total[0].size
    index = jnp.sort(jnp.where(found, index, candidates), 1)
    valid = index < candidates
    index = jnp.where(valid, index, 0)
    parent = beams.take(index // row)

    def pick(values, invalid):
        return jnp.where(valid, jnp.take_along_axis(values.reshape(batch, -1), index, 1), invalid)

    node = pick(children.edge, 0)
    token = jnp.where(valid, trie.child_token(level, node), 0)
    return Beams(
        tokens=parent.tokens.at[..., level].set(token),
        path=parent.path,
        score=pick(total, LOWEST),
        node=node,
        valid=valid,
        perturbed=None if children.perturbed is None else pick(children.perturbed, LOWEST),
    )


def finished(trie: ItemTrie, level: int, beams: Beams, norm: ScoreNorm) -> NodeBool:
    """Beams of `level` that a model has nothing to say about: one item is left below, its probability given the prefix
    is 1.

    Under "vocab" norm none is: other codes take their share of probability. Source: ALGORITHM section 5, fact b.
    """
    if norm == "vocab":
        return jnp.zeros_like(beams.valid)
    return beams.valid & (trie.ids_below(level, beams.node) == 1)


def not_finite(children: Children) -> RowBool:
    """Users with a child whose score is no finite number: the target's logits held NaN or infinity.

    Whether that child was chosen does not matter: in the modes that draw its siblings may be, by noise that means
    nothing any more.
    """
    return (children.exists & ~jnp.isfinite(children.log_prob)).any((1, 2))


def open_children(trie: ItemTrie, level: int, children: Children, norm: ScoreNorm) -> Children:
    """The children of nodes of `level` that may be drafted: those that are not finished."""
    if norm == "vocab":
        return children
    return children.replace(exists=children.exists & (trie.ids_below(level + 1, children.edge) > 1))


def only_children(trie: ItemTrie, level: int, beams: Beams) -> Children:
    """The one child of each finished beam of `level`, with probability 1."""
    edge, exists = trie.edges(level, beams.node)
    exists &= beams.valid[..., None]
    return Children(edge, jnp.where(exists, trie.child_token(level, edge), 0), jnp.where(exists, 0.0, LOWEST), exists)


def merge(order: NodeInt, nodes, others):
    """Two equal pytrees [B, N, ...] and [B, M, ...] as one, in the order [B, N + M]."""
    return take_nodes(jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), nodes, others), order)


def trie_order(*parts: Beams) -> NodeInt:
    """The order that puts all their nodes in trie order, invalid last."""
    node = jnp.concatenate([jnp.where(part.valid, part.node, jnp.iinfo(jnp.int32).max) for part in parts], 1)
    return jnp.argsort(node, axis=1, stable=True)


def place(beams: Beams, level: int, layout: Layout) -> Beams:
    """Beams of `level` >= 1 put into that level's first slots."""
    slots = layout.offset[level] + jnp.arange(beams.count, dtype=jnp.int32)
    return beams.replace(path=beams.path.at[..., level].set(slots))


def prompt_input(prompt: Prompt) -> StepInput:
    """The prompt under the causal mask; positions start at 0 on the first real token of each row."""
    positions = jnp.maximum(jnp.cumsum(prompt.valid, 1) - 1, 0)
    own = jnp.broadcast_to(jnp.arange(prompt.tokens.shape[1], dtype=jnp.int32), prompt.tokens.shape)
    return StepInput(prompt.tokens, positions, own, SlotMask.causal(prompt.valid))


def level_input(beams: Beams, level: int, prompt: Prompt, layout: Layout, settled: RowInt) -> StepInput:
    """Placed beams of `level` >= 1 as model input: each sees the valid prompt and its own path.

    settled [B]: the level each row stands at. A row already past `level` is idle there and writes nowhere: its old
    nodes of this level may be ancestors still in use. Invalid nodes write into their own slot, which nobody's path
    holds.
    """
    slots = layout.offset[level] + jnp.arange(beams.count, dtype=jnp.int32)
    slots = jnp.where((settled <= level)[:, None], slots, layout.slots)
    positions = jnp.broadcast_to((prompt.last_position + level)[:, None], slots.shape)
    valid = jnp.broadcast_to(prompt.valid[:, None], (*slots.shape, layout.prompt))
    return StepInput(beams.tokens[..., level - 1], positions, slots, SlotMask(valid, beams.path[..., 1 : level + 1]))


def join(*inputs: StepInput) -> StepInput:
    """Several inputs read in one call."""
    longest = max(part.mask.path.shape[-1] for part in inputs)

    def pad(part: StepInput) -> StepInput:
        path = part.mask.path
        path = jnp.pad(path, ((0, 0), (0, 0), (0, longest - path.shape[-1])), constant_values=UNPLACED)
        return part.replace(mask=part.mask.replace(path=path))

    return jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *map(pad, inputs))


def finalise(
    beams: Beams, target_calls: RowInt, given_up, faulty: RowInt, rounds, round_one: RoundOne | None
) -> Result:
    """Beams of depth L, best first.

    The sort is stable, so equals stay in lexicographic order.
    """
    key = beams.score if beams.perturbed is None else beams.perturbed
    beams = beams.take(jnp.argsort(jnp.where(beams.valid, -key, jnp.inf), axis=1, stable=True))
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
