"""The trie children of the nodes of a level: reading, scoring and selecting them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from atspeed_jax.decoding.base import ScoreNorm
from atspeed_jax.decoding.beams import LOWEST, Beams, gather_nodes, is_finished, largest
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import ChildBool, ChildFloat, ChildInt, Logits, NodeBool, NodeInt, RowBool


class Children(struct.PyTreeNode):
    """All trie children of N nodes of one level.

    parents: the nodes, with their cumulative scores.
    edge [B, N, R]: number of the edge to a child, which is the child's node number.
    token [B, N, R]: token on that edge.
    log_prob [B, N, R]: log-probability of the child given its parent.
    exists [B, N, R]: whether the child exists, below a valid parent.
    perturbed [B, N, R]: score with noise, as in `Beams`.
    level: depth of the parents.
    """

    parents: Beams
    edge: ChildInt
    token: ChildInt
    log_prob: ChildFloat
    exists: ChildBool
    perturbed: ChildFloat | None = None
    level: int = struct.field(pytree_node=False, kw_only=True)

    @property
    def total(self) -> ChildFloat:
        """Cumulative scores [B, N, R]; a sum below `LOWEST` becomes that."""
        summed = jnp.maximum(self.parents.score[..., None] + self.log_prob, LOWEST)
        return jnp.where(self.exists, summed, LOWEST)


def score_children(
    trie: ItemTrie,
    level: int,
    beams: Beams,
    logits: Logits,
    *,
    norm: ScoreNorm,
    temperature: float = 1.0,
    first_token: int = 0,
) -> Children:
    """Reads the trie children of nodes and scores them by a model's logits.

    Args:
      trie: the constraint.
      level: depth of the nodes.
      beams: [B, N] nodes.
      logits: [B, N, V] at the nodes. Finite logits of any size give finite scores;
        where a logit or the normalizer is not finite, the score is NaN (see
        `not_finite`).
      norm: "vocab" takes log-softmax over the whole vocabulary, "trie" over the
        children.
      temperature: divides the logits.
      first_token: token of the first logit (`base.first_token`). The score of a child
        whose token has no logit is NaN.

    Returns:
      The children [B, N, R]. The one child of a finished node (`is_finished`) has
      probability 1, whatever the logits are.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    edge, exists = trie.edges(level, beams.node)
    exists &= beams.valid[..., None]
    token = jnp.where(exists, trie.child_token(level, edge), 0)
    column = token
    if first_token:  # a negative column would count from the end
        column = jnp.where(token < first_token, logits.shape[-1], token - first_token)
    logit = jnp.take_along_axis(logits, column, -1)  # NaN for a token that the logits lack
    rivals = logits if norm == "vocab" else jnp.where(exists, logit, -jnp.inf)
    top = jax.lax.stop_gradient(rivals.max(-1, keepdims=True))
    total = jnp.log(jnp.exp((rivals - top) / temperature).sum(-1, keepdims=True))
    # Real models have logits near the least float32: their sums must not become -inf.
    log_prob = jnp.maximum((logit - top) / temperature - total, LOWEST)
    log_prob = jnp.where(jnp.isfinite(logit) & jnp.isfinite(top), log_prob, jnp.nan)
    if norm == "trie":
        log_prob = jnp.where(is_finished(trie, level, beams, norm)[..., None], 0.0, log_prob)
    return Children(beams, edge, token, jnp.where(exists, log_prob, LOWEST), exists, level=level)


def best_children(trie: ItemTrie, children: Children, count: int) -> Beams:
    """Selects the `count` best children by perturbed score, or by cumulative score.

    Returns:
      Beams [B, count] of the next level, in trie order, invalid ones last.
    """
    key = children.total if children.perturbed is None else children.perturbed
    batch = key.shape[0]
    index, found = largest(key.reshape(batch, -1), children.exists.reshape(batch, -1), count)
    return select_children(trie, children, index, found).resize(count)


def select_children(trie: ItemTrie, children: Children, index: NodeInt, found: NodeBool) -> Beams:
    """Makes beams of some children.

    Args:
      trie: the constraint.
      children: [B, N, R].
      index: [B, M] places among the N * R children, each at most once.
      found: [B, M] which of the places count.

    Returns:
      Beams [B, M] of the next level, in trie order, invalid ones last.
    """
    batch, _, row = children.edge.shape
    level, total = children.level, children.total
    candidates = total[0].size
    # Parents are in trie order and children in code order, so the flat index is the
    # trie order, and sorting the index restores it. Invalid places get the largest
    # index.
    index = jnp.sort(jnp.where(found, index, candidates), 1)
    valid = index < candidates
    index = jnp.where(valid, index, 0)
    parent = gather_nodes(children.parents, index // row)

    def pick(values, invalid):
        return jnp.where(valid, jnp.take_along_axis(values.reshape(batch, -1), index, 1), invalid)

    node = pick(children.edge, 0)
    # Read again: the compiler would have to keep all of `children.token` for these few.
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
    """Finds the users whose target logits were not finite where a child needs them.

    A child with such a score counts whether it is selected or not: in the modes that
    draw its siblings may be selected by noise that has lost its meaning.
    """
    return (children.exists & ~jnp.isfinite(children.log_prob)).any((1, 2))


def open_children(trie: ItemTrie, children: Children, norm: ScoreNorm) -> Children:
    """Keeps the children that may be drafted: those with several items below."""
    if norm == "vocab":
        return children
    several = trie.ids_below(children.level + 1, children.edge) > 1
    return children.replace(exists=children.exists & several)


def only_children(trie: ItemTrie, level: int, beams: Beams) -> Children:
    """Reads the one child of each finished beam of `level`; its probability is 1."""
    edge, exists = trie.edges(level, beams.node)
    exists &= beams.valid[..., None]
    token = jnp.where(exists, trie.child_token(level, edge), 0)
    return Children(beams, edge, token, jnp.where(exists, 0.0, LOWEST), exists, level=level)
