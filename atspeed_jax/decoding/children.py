"""The trie children of the nodes of a level: reading, scoring and selecting them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from atspeed_jax.decoding.base import ScoreNorm
from atspeed_jax.decoding.beams import LOWEST, Beams, gather_nodes, is_finished, largest
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import (
    ChildBool,
    ChildFloat,
    ChildInt,
    Logits,
    NodeBool,
    NodeInt,
    RowBool,
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


def score_children(
    trie: ItemTrie, level: int, beams: Beams, logits: Logits, norm: ScoreNorm, temperature: float = 1.0
) -> Children:
    """Reads each node's trie children and scores them: log-softmax over the vocabulary, or over the children alone.

    Finite logits of any size give finite scores. A logit that is not, or normalising by one, gives NaN. The one child
    of a `is_finished` node has probability 1, whatever the logits are.
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
        log_prob = jnp.where(is_finished(trie, level, beams, norm)[..., None], 0.0, log_prob)
    return Children(edge, token, jnp.where(exists, log_prob, LOWEST), exists)


def best_children(trie: ItemTrie, level: int, beams: Beams, children: Children, count: int) -> Beams:
    """The `count` best children of nodes of `level` by cumulative (or perturbed) score, in trie order, invalid last."""
    key = children.total(beams) if children.perturbed is None else children.perturbed
    index, found = largest(*(x.reshape(x.shape[0], -1) for x in (key, children.exists)), count)
    return select_children(trie, level, beams, children, index, found).resize(count)


def select_children(
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
    parent = gather_nodes(beams, index // row)

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
