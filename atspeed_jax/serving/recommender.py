"""Lists of next items for histories that a program holds, without a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from atspeed_jax.data.prompt_presets import preset
from atspeed_jax.items.filters import known_items
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.names import ItemNames, Name, item_names
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.filter_file import FilterFileError, items_for_all, items_of_list
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.serving.user_file import NOTHING, User
from atspeed_jax.utils.ranges import shown

ForAll = str | Path | Sequence[Name] | None  # the names of items, or the file of a list


class HistoryError(ValueError):
    """Histories that are no lists of items of the catalog."""


class Recommendations(NamedTuple):
    """Lists of N users, in the order of their histories, best item first.

    Attributes:
      items: [N][<= K] names of items; numbers, counted from 0, where items have no
        names. A list is shorter than K where no more items are left.
      scores: [N][<= K] log-probabilities of the items' ids, one per item.
    """

    items: list[list[Name]]
    scores: list[list[float]]


@dataclasses.dataclass(frozen=True)
class ListsForAll:
    """Which items the lists of all users may hold.

    Attributes:
      allow: names of items, or the file of a list; None for all items.
      exclude: as `allow`; None for no item.
    """

    allow: ForAll = None
    exclude: ForAll = None

    def applied(self, items: Assortment) -> Assortment:
        """Returns the items that are left.

        Raises:
          FilterFileError: a list that cannot be read, or an unknown item.
          CatalogError: no item is left.
        """
        allow = items_for_all(self.allow, items.names, "allow")
        exclude = items_for_all(self.exclude, items.names, "exclude")
        return items.only(allow, NOTHING if exclude is None else exclude)


class Recommender:
    """Histories -> lists of the K best next items, by one decoder.

    `open_run(...).recommender(...)` makes one. With the same settings the lists equal
    those of launch.recommend, a command of the checkout.

    Attributes:
      titles: of items, by what lists call them.
    """

    def __init__(
        self,
        lists: Lists,
        items: int | ItemNames,
        titles: Mapping[int, str] = MappingProxyType({}),
        grown: Callable[[Path], Recommender] | None = None,
    ):
        """Keeps what decodes.

        Args:
          lists: users -> items and scores, as `serving.recommend.lists_of` makes it.
          items: what histories and lists call the items of the catalog; or their number,
            for items that are called by number.
          titles: of items, by number.
          grown: what `with_catalog` returns for an index; None if no catalog can replace
            this one.
        """
        self._lists, self._items, self._grown = lists, item_names(items), grown
        self.titles: dict[Name, str] = dict(zip(self._items.called(titles), titles.values(), strict=True))

    @classmethod
    def of(
        cls,
        lists_of: Callable[[Assortment], Lists],
        trained: Assortment,
        read: Callable[[Path], ItemIndex],
        only: ListsForAll,
        catalog: str | Path | None = None,
    ) -> Recommender:
        """Makes a recommender whose catalog can be replaced.

        Args:
          lists_of: makes what decodes with some items.
          trained: the items that the models were trained with.
          read: reads the index of another catalog.
          only: which items lists may hold.
          catalog: index of the items that are listed; None for `trained`.

        Raises:
          ValueError: the index cannot be read or does not fit the models, a list of items
            cannot be read, or no item is left.
        """

        def make(items: Assortment) -> Recommender:
            listed = only.applied(items)
            return cls(lists_of(listed), listed.names, listed.titles, grown)

        def grown(index: Path) -> Recommender:
            return make(trained.grown(read(index), index))

        return make(trained) if catalog is None else grown(Path(catalog))

    def with_catalog(self, index: str | Path) -> Recommender:
        """Makes the recommender of a catalog that grew, with the same models.

        Items are matched by name where the run and the index have names, else by number.
        Items that the index lacks are never listed and stay readable in histories. New
        items may stand in histories and in lists. Nothing is compiled again as long as
        the ids fit the trie of the run, which is padded to powers of two.

        Args:
          index: file of the items that are listed from now on (`items.index_file`). It
            replaces what an earlier call gave.

        Raises:
          SourceError: the index cannot be read.
          CatalogError: the index does not fit the models (`items.grown_catalog.grow`).
          ValueError: this recommender was made without a way to read an index.
        """
        if self._grown is None:
            raise ValueError("this recommender was made of a function alone: make one with open_run(...).recommender")
        return self._grown(Path(index))

    @classmethod
    def from_hugging_face(
        cls,
        model: str | Path,
        index: str | Path,
        *,
        k: int = 20,
        exclude_seen: bool = False,
        batch_size: int = 8,
        only: ListsForAll | None = None,
        **served: Any,
    ) -> Recommender:
        """Makes a recommender of a model that knows the codes of the items.

        Args:
          model: directory of the model, as transformers saves it.
          index: file of the items' ids (`items.index_file`).
          k: items per list, and beams of the search.
          exclude_seen: whether the items of a history are left out of its list.
          batch_size: users decoded at once.
          only: which items lists may hold; None for all.
          **served: further fields of `serving.hugging_face.ModelDirectory`, such as
            draft, prompt, history and dtype. A prompt may be the name of a preset
            (`data.prompt_presets`).

        Raises:
          ValueError: as `serving.hugging_face.ServedModel`; k is not within the catalog.
        """
        served |= {"draft": Path(served["draft"])} if served.get("draft") else {}
        served |= {"prompt": preset(served["prompt"])} if isinstance(served.get("prompt"), str) else {}
        opened = ServedModel(ModelDirectory(Path(model), Path(index), **served))
        items = opened.catalog.items
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= items:
            raise ValueError(f"k={k!r}: expected a whole number from 1 to {items}, the number of items of the catalog")

        def lists_of(items: Assortment) -> Lists:
            return opened.lists(k, exclude_seen=exclude_seen, batch_size=batch_size, items=items)

        return cls.of(lists_of, opened.items, opened.read_index, only or ListsForAll())

    def __call__(
        self,
        histories: Sequence[Sequence[Name]],
        *,
        allow: Sequence[Sequence[Name] | None] | None = None,
        exclude: Sequence[Sequence[Name] | None] | None = None,
    ) -> Recommendations:
        """Recommends items to N users.

        The decoder is compiled in the first call, and once more for each further bucket of
        history lengths.

        Args:
          histories: [N][any length] names of items, oldest item first; numbers, counted
            from 0, where items have no names. The models read the newest items, as many
            as the run was trained for. A history may be empty.
          allow: per user, the items that its list may hold, or None for all.
          exclude: per user, the items that its list may not hold, or None for none.

        Returns:
          `.items` and `.scores`: per user a list of at most K items, best first, and
          their log-probabilities.

        Raises:
          HistoryError: a history is no sequence of items, or holds an item that is not in
            the catalog.
          FilterFileError: allow or exclude is no list of items per history, or names an
            unknown item.
          DecodeError: the scores of a user are not finite.
        """
        checked = self._checked(histories)
        allowed, excluded = (self._per_user(*one, len(checked)) for one in ((allow, "allow"), (exclude, "exclude")))
        users = [
            User(f"histories[{n}]", items, NOTHING if out is None else out, may)
            for n, (items, may, out) in enumerate(zip(checked, allowed, excluded, strict=True))
        ]
        if not users:
            return Recommendations([], [])
        items, scores = self._lists(users)
        found = items >= 0
        return Recommendations(
            [self._items.called(row[there].tolist()) for row, there in zip(items, found, strict=True)],
            [row[there].tolist() for row, there in zip(scores, found, strict=True)],
        )

    def _checked(self, histories: Sequence[Sequence[Name]]) -> list[np.ndarray]:
        if isinstance(histories, str | bytes | Mapping) or not hasattr(histories, "__iter__"):
            raise HistoryError(
                f"histories is {shown(histories)}: expected one history per user, such as [[12, 7], [3]]"
            )
        return [_items_of(history, f"histories[{n}]", self._items) for n, history in enumerate(histories)]

    def _per_user(self, lists: Sequence[Sequence[Name] | None] | None, what: str, users: int) -> list:
        """The items of a list per user, None for a user without one."""
        if lists is None:
            return [None] * users
        if isinstance(lists, str | bytes | Mapping) or not hasattr(lists, "__len__") or len(lists) != users:
            raise FilterFileError(
                f"{what} is {shown(lists)}: expected a list of items, or None, for each of {users} users"
            )
        return [None if one is None else items_of_list(one, self._items, f"{what}[{n}]") for n, one in enumerate(lists)]


def _items_of(history: Sequence[Name], name: str, items: ItemNames) -> np.ndarray:
    """A history as an array [any length] int64. Raises HistoryError as `Recommender`."""
    numbers = _numbers(history, name) if items.names is None else _numbers_of_names(history, name, items)
    known, unknown = known_items(numbers, items.items)
    if len(unknown):
        first = unknown[0] if items.names is None else shown(list(history)[numbers.tolist().index(-1)])
        raise HistoryError(
            f"{name} holds item {first}, which is not in the catalog, {items.described}; correct it, or leave such "
            "items out"
        )
    return known


def _numbers(history: Sequence[Name], name: str) -> np.ndarray:
    """The numbers that a history of item numbers holds."""
    try:
        array = np.asarray(history)
    except ValueError as error:  # sequences of several lengths
        raise HistoryError(f"{name} is {shown(history)}: expected a sequence of item numbers") from error
    if array.ndim != 1:
        hint = "; for one user give [[12, 7]]" if array.ndim == 0 else ""
        raise HistoryError(f"{name} is {shown(history)}: expected a sequence of item numbers{hint}")
    if not array.size:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise HistoryError(f"{name} is {shown(history)}: expected whole numbers, one for each item")
    return array


def _numbers_of_names(history: Sequence[Name], name: str, items: ItemNames) -> np.ndarray:
    """The numbers of the items that a history names; -1 for an unknown one."""
    if isinstance(history, str | bytes | Mapping) or not hasattr(history, "__iter__"):
        raise HistoryError(f"{name} is {shown(history)}: expected a sequence of items; for one user give [[...]]")
    try:
        given = (value.item() if isinstance(value, np.generic) else value for value in history)
        return np.array([items.number(value) for value in given], np.int64)
    except ValueError as error:
        raise HistoryError(f"{name}: {error}") from error
