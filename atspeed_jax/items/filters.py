"""Which ids a user may get: exclusion lists (seen items, bans) and allow lists over one trie, without rebuilding it.

The ids below a prefix are a contiguous run of the sorted ids, so counting a user's listed ids in that run, two binary
searches, says whether anything below the prefix is left. A decoder reads a `FilteredTrie` as it reads a `Trie`; the
lists are jit arguments, so a new list compiles nothing.
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
    """A list of items or ids that cannot be used."""


class FilteredTrie(struct.PyTreeNode):
    """A trie without the ids that a user may not get; row b of the batch reads list b.

    ids [B, X]: rows of the sorted distinct ids, ascending, filled up with NO_ID (`id_lists`). allow: the ids are those
    a user may get, instead of those it may not. Only one list: take exclusions out of an allow list beforehand. Same
    lists, order and scores as the search over a trie built without the other ids.
    """

    trie: Trie
    ids: Int[Array, "B X"]
    allow: bool = struct.field(pytree_node=False)

    @property
    def length(self) -> int:
        return self.trie.length

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """As `Trie.edges`; a child exists if a permitted id is left below it."""
        edge, exists = self.trie.edges(level, node)
        return edge, exists & (self.ids_below(level + 1, edge) > 0)

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """As `Trie.child_token`."""
        return self.trie.child_token(level, edge)

    def ids_below(self, level: int, node: Int[Array, "B *rest"]) -> Int[Array, "B *rest"]:
        """As `Trie.ids_below`, of permitted ids; node [B, ...]: row b reads list b."""
        first, end = (self.trie.first_id(level, nodes) for nodes in (node, node + 1))

        def below(ids, bound):
            return jnp.searchsorted(ids, bound.reshape(-1)).reshape(bound.shape)

        listed = jax.vmap(below)(self.ids, end) - jax.vmap(below)(self.ids, first)
        return listed if self.allow else end - first - listed

    def take_rows(self, rows: RowInt) -> FilteredTrie:
        """The lists of the given users of a batch."""
        return self.replace(ids=self.ids[rows])

    def per_user(self) -> FilteredTrie:
        """The lists alone have a row per user."""
        return self.replace(trie=self.trie.per_user(), ids=True)


def known_items(listed: Sequence[int] | np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray]:
    """(those of a list that a catalogue of `items` items has, in order; the others, such as items withdrawn since)."""
    given = np.asarray(listed)
    known = (given >= 0) & (given < items)
    return given[known].astype(np.int64), given[~known]


def first_unknown(lists: Sequence[Sequence[int] | np.ndarray], items: int) -> tuple[int, int] | None:
    """(number of the list, item) of the first item that a catalogue of `items` items does not have; None if there is
    none."""
    sizes = np.array([len(listed) for listed in lists], np.int64)
    if not sizes.sum():
        return None
    listed = np.concatenate([np.asarray(listed, np.int64) for listed in lists])
    unknown = np.flatnonzero((listed < 0) | (listed >= items))
    if not len(unknown):
        return None
    return int(np.searchsorted(np.cumsum(sizes), unknown[0], side="right")), int(listed[unknown[0]])


def unseen_items(
    ids: np.ndarray, seen: Sequence[np.ndarray], items_sorted: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Lists of ids [N, K] as lists of items [N, K] without those of `seen`, closed up; -1 where there are no more.

    ids, items_sorted, offsets: see `expand_ids`. An id that a seen item shares with another is a list's because of the
    other one.
    """
    items = expand_ids(ids, items_sorted, offsets, int(np.diff(offsets).max()) * ids.shape[1])
    for row, own in zip(items, seen, strict=True):
        row[np.isin(row, own)] = -1
    order = np.argsort(items < 0, axis=1, kind="stable")[:, : ids.shape[1]]
    return np.take_along_axis(items, order, 1)


def id_lists(catalog: Catalog, items: Sequence[np.ndarray], capacity: int, *, allow: bool) -> np.ndarray:
    """The ids [users, capacity] that lists of items stand for, for `FilteredTrie`.

    An id shared by several items is excluded only if all of them are listed, and allowed if any is; what remains of it
    is for the caller to sort out when ids become items. capacity: the fixed width of the lists.

    Raises FilterError naming the user for an unknown item, or more ids than `capacity`.
    """
    shared = np.bincount(catalog.id_of_item, minlength=len(catalog.ids))
    lists = np.full((len(items), capacity), NO_ID, np.int32)
    for user, listed in enumerate(items):
        known, unknown = known_items(listed, catalog.items)
        if len(unknown):
            raise FilterError(
                f"list {user} holds item {unknown[0]}; the catalogue has items 0 to {catalog.items - 1}: leave it out, "
                "as known_items does"
            )
        ids, counts = np.unique(catalog.id_of_item[np.unique(known)], return_counts=True)
        ids = ids if allow else ids[counts == shared[ids]]
        if len(ids) > capacity:
            raise FilterError(f"list {user} has {len(ids)} ids, more than the capacity {capacity}: raise the capacity")
        lists[user, : len(ids)] = ids
    return lists
