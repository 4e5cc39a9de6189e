"""Which ids a user may get: exclusion lists (seen items, bans) and allow lists.

One trie serves all users and is never rebuilt. The ids below a prefix are a contiguous
run of the sorted ids. Two binary searches count a user's listed ids in that run, which
says whether anything below the prefix is left. The lists are jit arguments, so a new
list compiles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Int

from atspeed_jax.items.catalog import Catalog, expand_ids
from atspeed_jax.items.trie import Trie
from atspeed_jax.shapes import ChildBool, ChildInt, NodeInt, RowInt

NO_ID = np.iinfo(np.int32).max  # fills a list; beyond every id, so the lists stay sorted


class FilterError(ValueError):
    """A list of items that cannot be used."""


class FilteredTrie(struct.PyTreeNode):
    """A trie without the ids that a user may not get (an `ItemTrie`).

    A search over it gives the same lists, order and scores as over a trie built without
    those ids.

    Attributes:
      trie: of all ids.
      ids: [B, X] one list per user: rows of the sorted distinct ids, ascending, filled
        up with NO_ID (`id_lists`).
      allow: whether the lists hold what a user may get; else what it may not. A user
        has one list: take exclusions out of an allow list beforehand.
    """

    trie: Trie
    ids: Int[Array | np.ndarray, "B X"]
    allow: bool = struct.field(pytree_node=False)

    @property
    def length(self) -> int:
        return self.trie.length

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """Reads the children of nodes; a child exists if a permitted id is below it."""
        edge, exists = self.trie.edges(level, node)
        return edge, exists & (self.ids_below(level + 1, edge) > 0)

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns the token on each existing edge."""
        return self.trie.child_token(level, edge)

    def ids_below(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns how many permitted ids begin with each node [B, ...]."""
        first, end = (self.trie.first_id(level, nodes) for nodes in (node, node + 1))

        def below(ids, bound):
            return jnp.searchsorted(ids, bound.reshape(-1)).reshape(bound.shape)

        listed = jax.vmap(below)(self.ids, end) - jax.vmap(below)(self.ids, first)
        return listed if self.allow else end - first - listed

    def take_rows(self, rows: RowInt) -> FilteredTrie:
        """Returns the trie with the lists of the users `rows`."""
        return self.replace(ids=self.ids[rows])

    def per_user(self) -> FilteredTrie:
        """Marks the lists: they alone have a row per user."""
        return self.replace(trie=self.trie.per_user(), ids=True)


def known_items(listed: Sequence[int] | np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits a list into items that a catalog of `items` items has, and the others.

    The others may be items that were withdrawn. Both keep the order of the list.
    """
    given = np.asarray(listed)
    known = (given >= 0) & (given < items)
    return given[known].astype(np.int64), given[~known]


def first_unknown(lists: Sequence[Sequence[int] | np.ndarray], items: int) -> tuple[int, int] | None:
    """Finds the first item that a catalog of `items` items does not have.

    Returns:
      (number of its list, the item), or None if all items are known.
    """
    sizes = np.array([len(listed) for listed in lists], np.int64)
    if not sizes.sum():
        return None
    listed = np.concatenate([np.asarray(listed, np.int64) for listed in lists])
    unknown = np.flatnonzero((listed < 0) | (listed >= items))
    if not len(unknown):
        return None
    return int(np.searchsorted(np.cumsum(sizes), unknown[0], side="right")), int(listed[unknown[0]])


def unseen_items(
    ids: np.ndarray,
    seen: Sequence[Sequence[int] | np.ndarray],
    items_sorted: np.ndarray,
    offsets: np.ndarray,
    allowed: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """Turns lists of ids into lists of items without those that a user has seen.

    An id that a seen item shares with another item may be in a list because of the
    other.

    Args:
      ids: [N, K] rows of the distinct ids, as in `expand_ids`.
      seen: per list, the items to leave out.
      items_sorted: as in `expand_ids`.
      offsets: as in `expand_ids`.
      allowed: per list, the items that may stand in it, or None for all.

    Returns:
      [N, K] items, closed up; -1 in places that are left empty.
    """
    items = expand_ids(ids, items_sorted, offsets, int(np.diff(offsets).max()) * ids.shape[1])
    for row, history in zip(items, seen, strict=True):
        row[np.isin(row, history)] = -1
    for row, permitted in zip(items, () if allowed is None else allowed, strict=allowed is not None):
        if permitted is not None:
            row[~np.isin(row, permitted)] = -1
    order = np.argsort(items < 0, axis=1, kind="stable")[:, : ids.shape[1]]
    return np.take_along_axis(items, order, 1)


def id_lists(
    catalog: Catalog, items: Sequence[Sequence[int] | np.ndarray] | np.ndarray, capacity: int, *, allow: bool
) -> np.ndarray:
    """Makes the id lists of a `FilteredTrie` from lists of items.

    An id shared by several items is excluded only if all of them are listed, and
    allowed if one is. The caller removes the other items when ids become items. Items
    that the catalog itself never lists (`items.grown_catalog`) do not count.

    Args:
      catalog: of the items.
      items: per user, the listed items.
      capacity: X, the fixed width of the lists.
      allow: whether the lists say what a user may get.

    Returns:
      [users, X] int32.

    Raises:
      FilterError: an unknown item, or more ids than `capacity`.
    """
    id_of_item = catalog.id_of_item
    shared = np.bincount(id_of_item[id_of_item >= 0], minlength=len(catalog.ids))
    lists = np.full((len(items), capacity), NO_ID, np.int32)
    for user, listed in enumerate(items):
        known, unknown = known_items(listed, catalog.items)
        if len(unknown):
            raise FilterError(
                f"list {user} holds item {unknown[0]}; the catalog has items 0 to {catalog.items - 1}: leave it out, "
                "as known_items does"
            )
        rows = id_of_item[np.unique(known)]
        ids, counts = np.unique(rows[rows >= 0], return_counts=True)
        ids = ids if allow else ids[counts == shared[ids]]
        if len(ids) > capacity:
            raise FilterError(f"list {user} has {len(ids)} ids, more than the capacity {capacity}: raise the capacity")
        lists[user, : len(ids)] = ids
    return lists
