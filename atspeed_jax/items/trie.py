"""The exact item trie as flat arrays: which tokens may follow a prefix, read by a fixed-width gather.

Nodes of one depth are numbered in lexicographic order of their prefixes, so the edge that leads to node e of depth l+1
is edge e of level l: an edge costs its token alone, and a node's children are a contiguous run of edges (compressed
sparse rows, one per level; the layout is that of STATIC, arXiv 2602.22647, section 3). Reading a run takes
`row_width[level]` entries whatever the number of items. The arrays are jit *arguments* padded to capacities: another
catalogue that fits them does not recompile.
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
    """The ids do not form a trie, or do not fit the capacities asked for."""


@dataclasses.dataclass(frozen=True)
class TrieCapacity:
    """Static sizes of a trie.

    nodes: most prefixes of depth 1..L (L entries). row_width: most children of a node of depth 0..L-1 (L entries).
    """

    nodes: tuple[int, ...]
    row_width: tuple[int, ...]

    @classmethod
    def padded(cls, nodes: tuple[int, ...], row_width: tuple[int, ...]) -> TrieCapacity:
        """The next powers of two, which catalogues of like size share."""
        return cls(tuple(map(_power_of_two, nodes)), tuple(map(_power_of_two, row_width)))


@runtime_checkable
class ItemTrie(Protocol):
    """The constraint of a search: which prefixes exist, and how many ids each of them leads to.

    A pytree of arrays. A node is an int among the nodes of its depth; nodes of one depth
    are numbered in lexicographic order of their prefixes, and node 0 of depth 0 is the
    root. The edge that leads to a node has the number of that node. `Trie` is the plain
    one, `FilteredTrie` leaves out ids per user, `LevelTrie` allows any known code.
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
        """Returns, in the shape of this pytree, True for each array with a row per user."""
        ...


class Trie(struct.PyTreeNode):
    """One compressed sparse row matrix per level l = 0..L-1.

    row_start[l][n]: first edge of node n of depth l, int32 [nodes + 1]; token[l][e]: token on edge e, which leads to
    node e of depth l + 1, int32 [edges]. Padding: empty rows and token 0. A node of depth L is a row of the sorted
    distinct ids.
    """

    row_start: tuple[Array, ...]
    token: tuple[Array, ...]
    row_width: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def length(self) -> int:
        return len(self.row_width)

    @property
    def capacity(self) -> TrieCapacity:
        return TrieCapacity(tuple(t.shape[0] for t in self.token), self.row_width)

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """Edge numbers [B, N, R] of the children of each node of depth `level`, and which of them exist."""
        start, end = self.row_start[level][node], self.row_start[level][node + 1]
        edge = start[..., None] + jnp.arange(self.row_width[level], dtype=jnp.int32)
        exists = edge < end[..., None]
        return jnp.where(exists, edge, 0), exists

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Tokens on edges that exist."""
        return self.token[level][edge]

    def find(self, tokens: NodeLevels) -> tuple[NodeInt, NodeBool]:
        """Rows of the sorted distinct ids that have these tokens [B, N, L], and which of them do; 0 where none does."""
        node = jnp.zeros(tokens.shape[:2], jnp.int32)
        found = jnp.ones(tokens.shape[:2], bool)
        for level in range(self.length):
            edge, exists = self.edges(level, node)
            same = exists & (self.child_token(level, edge) == tokens[..., level, None])
            found &= same.any(-1)
            node = jnp.where(found, jnp.where(same, edge, 0).max(-1), 0)
        return node, found

    def first_id(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Number of ids that come before node `node` of depth `level`."""
        for depth in range(level, self.length):
            node = self.row_start[depth][node]
        return node

    def ids_below(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Ids that begin with the prefix `node` of depth `level`."""
        return self.first_id(level, node + 1) - self.first_id(level, node)

    def take_rows(self, rows: RowInt) -> Trie:
        """The trie of the given users of a batch: the same for all."""
        return self

    def per_user(self) -> Trie:
        """No array has a row per user."""
        return jax.tree.map(lambda _: False, self)


def build_trie(id_tokens: np.ndarray, capacity: TrieCapacity | None = None) -> Trie:
    """Builds the trie of distinct, lexicographically sorted ids.

    id_tokens: [U, L] int, as `Catalog.id_tokens`. capacity: sizes to pad to; by default the next powers of two.
    Raises TrieError if the ids are unsorted or repeated, or exceed the capacity (naming level and width).
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
        rows = np.full((capacity.nodes[level - 1] if level else 1) + 1, nodes[level], np.int32)
        rows[: len(starts[level])] = np.searchsorted(parent, np.arange(len(starts[level])))
        edges = np.zeros(capacity.nodes[level], np.int32)
        edges[: nodes[level]] = ids[starts[level + 1], level]
        row_start.append(jnp.asarray(rows))
        token.append(jnp.asarray(edges))
    return Trie(tuple(row_start), tuple(token), capacity.row_width)


def prefix_counts(id_tokens: np.ndarray, *, open_only: bool = False) -> tuple[int, ...]:
    """Number of distinct prefixes of depth 1..L of sorted ids [U, L]; open_only: of those with several ids below."""
    ids = np.asarray(id_tokens)
    starts = prefix_rows(ids)[1:]
    return tuple(int((np.diff(s, append=len(ids)) > open_only).sum()) for s in starts)


def popularity_prior(trie: Trie, id_tokens: np.ndarray, id_counts: np.ndarray) -> tuple[Array, ...]:
    """Log-probability of each edge under smoothed popularity: log (1 + count below child) / (1 + count) summed over
    siblings.

    id_tokens: [U, L] sorted ids the trie was built from. id_counts: [U] training interactions of each id. Returns one
    float32 array [edges] per level, padded like `trie.token`; it depends on the catalogue and its counts alone, no
    model (the free drafter).
    """
    starts = prefix_rows(np.asarray(id_tokens))
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
    """For each depth 0..L, the row of `ids` at which each distinct prefix of that depth begins (ascending)."""
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
