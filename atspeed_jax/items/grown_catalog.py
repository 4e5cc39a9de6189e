"""A catalog that changed after training: items came and went, and no model changed.

An item of the trained catalog keeps its number, codes and tokens. A new item gets a
number behind the others. An item that was removed stays readable in histories and is
never listed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from atspeed_jax.items.catalog import Catalog, CatalogError
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.names import ItemNames
from atspeed_jax.utils.ranges import shown


@dataclass(frozen=True, eq=False)
class ListedCatalog(Catalog):
    """A catalog of which some items alone are listed.

    `ids` are those of the listed items. The row of an item that is not listed is -1 in
    `id_of_item`, whether or not a listed item has the same id.

    Attributes:
      listed: [items] bool, which items a list may hold.

    Raises:
      CatalogError: no item is listed, or as `Catalog`.
    """

    listed: np.ndarray = field(kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.listed.shape != (self.items,) or not self.listed.any():
            raise CatalogError(f"of {self.items} items {int(self.listed.sum())} may be listed; expected at least one")

    @cached_property
    def _distinct(self) -> tuple[np.ndarray, np.ndarray]:
        ids, of_listed = np.unique(self.codes[self.listed], axis=0, return_inverse=True)
        rows = np.full(self.items, -1, np.int32)
        rows[self.listed] = of_listed.reshape(-1)
        ids.setflags(write=False)
        rows.setflags(write=False)
        return ids, rows

    def items_by_id(self, popularity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Groups the listed items by id: see `Catalog.items_by_id`.

        Returns:
          items_sorted [listed items] int32 and offsets [U + 1] int32.
        """
        order, offsets = super().items_by_id(popularity)
        return order[self.items - int(self.listed.sum()) :], offsets  # row -1 is sorted to the front


def listed_items(catalog: Catalog) -> np.ndarray:
    """Returns which items a list may hold, [items] bool."""
    return catalog.listed if isinstance(catalog, ListedCatalog) else np.ones(catalog.items, bool)


def counts_of_ids(catalog: Catalog, popularity: np.ndarray) -> np.ndarray:
    """Adds up the interactions of the items that share an id.

    Args:
      catalog: of the items. Items that are not listed do not count.
      popularity: [items] interactions of each item.

    Returns:
      [U] interactions of each id of `Catalog.ids`.
    """
    rows = catalog.id_of_item
    return np.bincount(rows[rows >= 0], weights=popularity[rows >= 0], minlength=len(catalog.ids))


def listing(catalog: Catalog, listed: np.ndarray) -> ListedCatalog:
    """Returns the catalog with no other items listed than `listed`, [items] bool.

    Raises:
      CatalogError: no item is left.
    """
    return _with(catalog, catalog.codes, listed)


def _with(catalog: Catalog, codes: np.ndarray, listed: np.ndarray) -> ListedCatalog:
    """The catalog with other `codes` [items, L], of whose items some are listed."""
    fields: dict[str, Any] = {one.name: getattr(catalog, one.name) for one in dataclasses.fields(Catalog)}
    fields |= {"codes": codes}
    return ListedCatalog(**fields, listed=listed)


@dataclass(frozen=True, eq=False)
class GrownCatalog:
    """A catalog after growth.

    Attributes:
      catalog: of all items, known and new.
      names: what files call the items.
      titles: of the items that have one, by number.
      known, new, removed: numbers of items: of the trained catalog that are still
        listed, that it lacks, and that are not listed any more.
    """

    catalog: ListedCatalog
    names: ItemNames
    titles: Mapping[int, str]
    known: int
    new: int
    removed: int

    def __str__(self) -> str:
        return f"{self.known} known items, {self.new} new ones; {self.removed} items of the trained catalog removed"


def grow(catalog: Catalog, names: ItemNames, titles: Mapping[int, str], index: ItemIndex, file: Path) -> GrownCatalog:
    """Takes the items of an index in the place of those of a catalog.

    Items are matched by name where both have names, and by number otherwise.

    Args:
      catalog: that the models were trained with.
      names: of its items.
      titles: of its items, by number.
      index: of the items that are listed from now on. Its numbers may have gaps.
      file: of the index, for messages.

    Raises:
      CatalogError: ids of another length or spelling, a known item with other codes, a
        code that the models have no token for, or a new item without a name.
    """
    _check_form(catalog, index, file)
    numbers = np.arange(len(index.codes)) if index.numbers is None else index.numbers
    by_name = names.names is not None and index.names is not None
    if by_name:
        assert index.names is not None, "by_name says so"
        item_of = {name: item for item, name in enumerate(names.names or ())}
        at = np.array([item_of.get(name, -1) for name in index.names], np.int64)
    else:
        at = np.where(numbers < catalog.items, numbers, -1)
    new = at < 0

    def called(row: int) -> str:
        return f"{file}: item {shown(index.names[row] if by_name and index.names is not None else int(numbers[row]))}"

    _check_codes(catalog, index, at, called)
    if new.any() and names.names is not None and not by_name:
        raise CatalogError(
            f"{called(int(new.argmax()))} is new, but the index has no names, and the items of the run have names such "
            f"as {shown(names.names[0])}: give an index with names, such as a parquet file with a column name"
        )
    at[new] = catalog.items + np.arange(new.sum())
    codes = np.concatenate([catalog.codes, index.codes[new]])
    listed = np.zeros(len(codes), bool)
    listed[at] = True
    grown = _with(catalog, codes, listed)
    found = dict(titles) | {int(at[row]): title for row, title in index.titles.items()}
    known = int((~new).sum())
    how = {"known": known, "new": int(new.sum()), "removed": catalog.items - known}
    return GrownCatalog(grown, _names_of(names, index, numbers, new, by_name=by_name), found, **how)


def _names_of(names: ItemNames, index: ItemIndex, numbers: np.ndarray, new: np.ndarray, *, by_name: bool) -> ItemNames:
    """The names of the known items, then those of the new ones. Where items are called
    by number and the new numbers have gaps, names are the numbers.
    """
    count = names.items + int(new.sum())
    if by_name:
        assert index.names is not None, "by_name says so"
        assert names.names is not None, "by_name says so"
        further = tuple(name for name, is_new in zip(index.names, new, strict=True) if is_new)
        return dataclasses.replace(names, items=count, names=names.names + further)
    further = numbers[new]
    if names.names is not None or (further == names.items + np.arange(len(further))).all():
        return dataclasses.replace(names, items=count)
    return ItemNames(count, (*range(names.items), *further.tolist()))


def _check_form(catalog: Catalog, index: ItemIndex, file: Path) -> None:
    """Raises CatalogError for ids of another length or spelling."""
    if index.model_tokens is not None:
        raise CatalogError(f"{file}: ids are tokens of a model; expected codes, as those that the run was trained with")
    if index.codes.shape[1] != catalog.length:
        raise CatalogError(
            f"{file}: ids have {index.codes.shape[1]} codes, those of the run have {catalog.length}; make the ids with "
            "the codebooks of the run (launch.build_ids --assign in the checkout)"
        )
    if index.spelling is not None and index.spelling != catalog.spelling:
        raise CatalogError(
            f"{file}: codes are written {index.spelling}, those of the run {catalog.spelling or 'as usual, <a_0>'}; "
            "make the ids with the codebooks of the run"
        )


def _check_codes(catalog: Catalog, index: ItemIndex, at: np.ndarray, called) -> None:
    """Raises CatalogError for a known item with other codes, or a code without token."""
    known = np.flatnonzero(at >= 0)
    other = known[(index.codes[known] != catalog.codes[at[known]]).any(1)]
    if len(other):
        row = int(other[0])
        raise CatalogError(
            f"{called(row)} has the codes {index.codes[row].tolist()}, but was trained with "
            f"{catalog.codes[at[row]].tolist()} ({len(other)} such items); a known item keeps its codes: make the ids "
            "of new items alone (launch.build_ids --assign in the checkout), or train a new run"
        )
    without = np.argwhere(index.codes >= np.array(catalog.level_sizes))
    if len(without):
        row, level = map(int, without[0])
        raise CatalogError(
            f"{called(row)} has code {index.codes[row, level]} at level {level}, but the model has tokens for the "
            f"{catalog.level_sizes[level]} codes 0..{catalog.level_sizes[level] - 1} of that level alone; make the "
            "ids with the codebooks of the run, or train a new run"
        )
