"""The exact item trie as flat arrays: which tokens may follow a prefix.

Nodes of one depth are numbered in lexicographic order of their prefixes. So the edge
that leads to node e of depth l + 1 is edge e of level l: an edge costs its token alone,
and the children of a node are a contiguous run of edges. That is one compressed sparse
row matrix per level, as in STATIC (arXiv 2602.22647, section 3). Reading a run takes
`row_width[level]` entries for any number of items. The arrays are jit *arguments*,
padded to capacities: another catalog that fits them does not recompile.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Int

from atspeed_jax.shapes import ChildBool, ChildInt, NodeBool, NodeInt, NodeLevels, RowInt


class TrieError(ValueError):
    """Ids that do not form a trie, or do not fit its capacities."""


@dataclasses.dataclass(frozen=True)
class TrieCapacity:
    """Static sizes of a trie.

    Attributes:
      nodes: most prefixes of each depth 1..L.
      row_width: most children of a node of each depth 0..L-1.
    """

    nodes: tuple[int, ...]
    row_width: tuple[int, ...]

    @classmethod
    def padded(cls, nodes: tuple[int, ...], row_width: tuple[int, ...]) -> TrieCapacity:
        """Rounds sizes up to powers of two, which catalogs of similar size share."""
        return cls(tuple(map(_power_of_two, nodes)), tuple(map(_power_of_two, row_width)))


@runtime_checkable
class ItemTrie(Protocol):
    """The constraint of a search: which prefixes exist, and how many ids begin so.

    A pytree of arrays. A node is an int among the nodes of its depth; nodes of one
    depth are numbered in lexicographic order of their prefixes, and node 0 of depth 0
    is the root. The edge that leads to a node has the number of that node. `Trie` is
    the plain one, `FilteredTrie` leaves out ids per user, `LevelTrie` allows any known
    code.
    """

    @property
    def length(self) -> int:
        """L, codes of an id."""
        ...

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """Reads the children of nodes.

        Args:
          level: depth of the nodes, 0..L-1.
          node: [B, N] nodes of that depth; row b of the batch is user b.

        Returns:
          (edges [B, N, R] in code order, which of the R exist [B, N, R]). An edge that
          does not exist has some valid number, so that it may be read.
        """
        ...

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns the token on each existing edge that leaves a node of depth `level`."""
        ...

    def ids_below(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns how many ids begin with each node [B, ...] of depth `level`, 0..L."""
        ...

    def take_rows(self, rows: RowInt) -> ItemTrie:
        """Returns the trie of the users `rows` of a batch, for a batch of those alone."""
        ...

    def per_user(self) -> ItemTrie:
        """Returns a pytree like this one: True for each array with a row per user."""
        ...


class Trie(struct.PyTreeNode):
    """One compressed sparse row matrix per level l = 0..L-1.

    A node of depth L is a row of the sorted distinct ids. Padding is empty rows and
    token 0.

    Attributes:
      row_start: row_start[l][n], int32 [nodes + 1], is the first edge of node n of
        depth l.
      token: token[l][e] is the token on edge e, which leads to node e of depth l + 1,
        int32 [edges].
      row_width: most children of a node of each depth 0..L-1.
    """

    row_start: tuple[Array | np.ndarray, ...]
    token: tuple[Array | np.ndarray, ...]
    row_width: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def length(self) -> int:
        return len(self.row_width)

    @property
    def capacity(self) -> TrieCapacity:
        return TrieCapacity(tuple(t.shape[0] for t in self.token), self.row_width)

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """Reads the children of nodes: see `ItemTrie`."""
        start, end = self.row_start[level][node], self.row_start[level][node + 1]
        edge = start[..., None] + jnp.arange(self.row_width[level], dtype=jnp.int32)
        exists = edge < end[..., None]
        return jnp.where(exists, edge, 0), exists

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns the token on each existing edge."""
        return self.token[level][edge]

    def find(self, tokens: NodeLevels) -> tuple[NodeInt, NodeBool]:
        """Finds ids by their tokens [B, N, L].

        Returns:
          (row [B, N] of the sorted distinct ids, 0 where no id has the tokens; whether
          one has [B, N]).
        """
        node = jnp.zeros(tokens.shape[:2], jnp.int32)
        found = jnp.ones(tokens.shape[:2], bool)
        for level in range(self.length):
            edge, exists = self.edges(level, node)
            same = exists & (self.child_token(level, edge) == tokens[..., level, None])
            found &= same.any(-1)
            node = jnp.where(found, jnp.where(same, edge, 0).max(-1), 0)
        return node, found

    def first_id(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns how many ids come before each node of depth `level`."""
        for depth in range(level, self.length):
            node = self.row_start[depth][node]
        return node

    def ids_below(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns how many ids begin with each node of depth `level`."""
        return self.first_id(level, node + 1) - self.first_id(level, node)

    def take_rows(self, rows: RowInt) -> Trie:
        """Returns the same trie, which all users share."""
        return self

    def per_user(self) -> Trie:
        """Marks no array: none has a row per user."""
        return jax.tree.map(lambda _: False, self)


def build_trie(id_tokens: np.ndarray, capacity: TrieCapacity | None = None) -> Trie:
    """Builds the trie of distinct ids.

    Args:
      id_tokens: [U, L] int, in lexicographic order, as `Catalog.id_tokens`.
      capacity: sizes to pad to; by default the next powers of two.

    Raises:
      TrieError: the ids are unsorted or repeated, or exceed the capacity.
    """
    ids = np.asarray(id_tokens)
    if ids.ndim != 2 or ids.shape[0] == 0 or ids.shape[1] == 0:
        raise TrieError(f"ids must be a matrix [ids >= 1, codes >= 1], got shape {ids.shape}")
    starts = prefix_rows(ids)
    nodes = tuple(len(s) for s in starts[1:])
    parents = [np.searchsorted(starts[level], starts[level + 1], side="right") - 1 for level in range(ids.shape[1])]
    widths = tuple(int(np.bincount(p).max()) for p in parents)
    capacity = capacity or TrieCapacity.padded(nodes, widths)
    _check_capacity(capacity, nodes, widths)
    row_start, token = [], []
    for level, parent in enumerate(parents):
        # Rows of padding start and end at the last edge, so they are empty.
        rows = np.full((capacity.nodes[level - 1] if level else 1) + 1, nodes[level], np.int32)
        rows[: len(starts[level])] = np.searchsorted(parent, np.arange(len(starts[level])))
        edges = np.zeros(capacity.nodes[level], np.int32)
        edges[: nodes[level]] = ids[starts[level + 1], level]
        row_start.append(jnp.asarray(rows))
        token.append(jnp.asarray(edges))
    return Trie(tuple(row_start), tuple(token), capacity.row_width)


def prefix_counts(id_tokens: np.ndarray, *, open_only: bool = False) -> tuple[int, ...]:
    """Counts the distinct prefixes of each depth 1..L.

    Args:
      id_tokens: [U, L] sorted ids.
      open_only: whether prefixes with a single id below are left out.
    """
    ids = np.asarray(id_tokens)
    starts = prefix_rows(ids)[1:]
    return tuple(int((np.diff(s, append=len(ids)) > open_only).sum()) for s in starts)


def popularity_prior(trie: Trie, id_tokens: np.ndarray, id_counts: np.ndarray) -> tuple[Array, ...]:
    """Scores each edge by popularity, smoothed by one interaction per id.

    The prior of `PopularityDrafter`, which drafts without a model.

    Args:
      trie: built from `id_tokens`.
      id_tokens: [U, L] sorted ids.
      id_counts: [U] training interactions of each id.

    Returns:
      Per level a float32 array [edges], padded like `trie.token`: the log of the share
      of the parent's interactions that lie below the child.
    """
    starts = prefix_rows(np.asarray(id_tokens))
    # Ids below a prefix are a run of rows: two reads of the running sum count them.
    below = np.concatenate([[0.0], np.cumsum(np.asarray(id_counts, np.float64) + 1.0)])
    totals = [np.diff(np.append(below[s], below[-1])) for s in starts]
    prior = []
    for level in range(trie.length):
        parent = np.searchsorted(starts[level], starts[level + 1], side="right") - 1
        values = np.zeros(trie.token[level].shape[0], np.float32)
        values[: len(parent)] = np.log(totals[level + 1]) - np.log(totals[level][parent])
        prior.append(jnp.asarray(values))
    return tuple(prior)


def prefix_rows(ids: np.ndarray) -> list[np.ndarray]:
    """Returns, per depth 0..L, the rows of `ids` where distinct prefixes begin.

    Raises:
      TrieError: the ids [U, L] are not distinct and sorted.
    """
    changed = ids[1:] != ids[:-1]
    first_change = np.where(changed.any(1), changed.argmax(1), ids.shape[1])
    if len(ids) > 1:
        rows = np.arange(len(ids) - 1)
        at = np.minimum(first_change, ids.shape[1] - 1)
        wrong = (first_change == ids.shape[1]) | (ids[1:][rows, at] <= ids[:-1][rows, at])
        if wrong.any():
            row = int(wrong.argmax())
            raise TrieError(
                f"ids must be distinct and sorted: row {row + 1} {ids[row + 1].tolist()} does not follow row {row} "
                f"{ids[row].tolist()}; take them from Catalog.id_tokens"
            )
    return [np.concatenate([[0], np.flatnonzero(first_change < depth) + 1]) for depth in range(ids.shape[1] + 1)]


def _power_of_two(n: int) -> int:
    return 1 << max(0, int(n - 1).bit_length())


def _check_capacity(capacity: TrieCapacity, nodes: tuple[int, ...], widths: tuple[int, ...]) -> None:
    if len(capacity.nodes) != len(nodes) or len(capacity.row_width) != len(nodes):
        raise TrieError(f"capacity is for ids of length {len(capacity.nodes)}, the ids have length {len(nodes)}")
    for level, (have, need) in enumerate(zip(capacity.row_width, widths, strict=True)):
        if need > have:
            raise TrieError(
                f"a node of level {level} has {need} children, the trie's row width there is {have}: raise "
                f"TrieCapacity.row_width[{level}] to {_power_of_two(need)}"
            )
    for level, (have, need) in enumerate(zip(capacity.nodes, nodes, strict=True)):
        if need > have:
            raise TrieError(
                f"level {level + 1} has {need} prefixes, the trie has room for {have}: raise "
                f"TrieCapacity.nodes[{level}] to {_power_of_two(need)}"
            )
