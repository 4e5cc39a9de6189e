"""Names of items: what the log of the user calls them, such as an ASIN."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atspeed_jax.utils.ranges import shown

Name = str | int

NAMES_FILE = "names.json"
_EXPECTED = 'expected a list with one text or whole number per item, such as ["B01", "B02", ...]'


FROM_ZERO = "item numbers count from 0, as in the index (those of sequential_*.txt count from 1: subtract 1)"
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,17}")


class NamesError(ValueError):
    """A file of names that cannot be read."""


@dataclass(frozen=True, eq=False)
class ItemNames:
    """What files and lists call the items of a catalog.

    Attributes:
      items: number of items.
      names: the name of each item; None for items that are called by their number.
      numbers_too: whether a number that is no name calls the item of that number. It
        does where every name is a text that is no number.
    """

    items: int
    names: tuple[Name, ...] | None = None
    numbers_too: bool = False

    def number(self, value: object) -> int:
        """Finds the item that a value of a file calls.

        Names are compared by value. A name that is a number may be written as a text,
        and the other way round, if no other item has that name. 3.0 is 3: tables have it
        that once had a gap.

        Returns:
          The number of the item; a number outside 0..items-1 for an unknown item.

        Raises:
          ValueError: a value that is neither a number nor a text.
        """
        number = _whole(value)
        if self.names is None:
            if number is None or (isinstance(value, str) and number < 0):
                raise ValueError(f"item {shown(value)} is not the number of an item")
            return number
        if number is None and not isinstance(value, str):
            raise ValueError(f"item {shown(value)} is not the name of an item, a text or a whole number")
        keys = (value, number) if isinstance(value, str) else (number, str(number))
        found = next((self._item_of[key] for key in keys if key in self._item_of), -1)
        if found < 0 and number is not None and self._numbers_are_free and 0 <= number < self.items:
            return number
        return found

    def called(self, items: Iterable[int]) -> list[Name]:
        """Returns what lists call items."""
        return list(items) if self.names is None else [self.names[item] for item in items]

    @property
    def texts(self) -> bool:
        """Whether some item is called by a text."""
        return self.names is not None and any(isinstance(name, str) for name in self.names)

    @property
    def described(self) -> str:
        """What items the catalog has, for a message about an unknown one."""
        if self.names is None:
            return f"whose items are 0 to {self.items - 1}; {FROM_ZERO}"
        return f"whose {self.items} items are called such as {shown(self.names[0])}"

    @functools.cached_property
    def _item_of(self) -> dict[Name | None, int]:
        return {} if self.names is None else {name: item for item, name in enumerate(self.names)}

    @functools.cached_property
    def _numbers_are_free(self) -> bool:
        return self.numbers_too and not any(
            isinstance(name, int) or _DIGITS.fullmatch(name) for name in self.names or ()
        )


def _whole(value: object) -> int | None:
    """The whole number that a value is, or that a text spells; None for another value."""
    if isinstance(value, str):
        return int(value) if _DIGITS.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if type(value) is int else None


def item_names(items: int | ItemNames) -> ItemNames:
    """Returns `items` itself, or for a number of items those that are called by number."""
    return items if isinstance(items, ItemNames) else ItemNames(items)


def read_names(path: Path, items: int) -> tuple[Name, ...] | None:
    """Reads the names of all items.

    Args:
      path: a JSON list of names in the order of the items.
      items: of the catalog.

    Returns:
      the name of item n at place n; None if the file does not exist.

    Raises:
      NamesError: another content; it names the file and the entry.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise NamesError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    if not isinstance(found, list):
        raise NamesError(f"{path} holds a {type(found).__name__}; {_EXPECTED}")
    if len(found) != items:
        raise NamesError(f"{path} has {len(found)} names, but the catalog has {items} items; {_EXPECTED}")
    check_names(found, str(path))
    return tuple(found)


def check_names(names: Sequence, where: str) -> None:
    """Checks that every item has a name, and no two items have the same.

    Args:
      names: in the order of the items.
      where: they come from, for messages.

    Raises:
      NamesError: a name that is neither a text nor a whole number, or a name of two
        items.
    """
    first: dict[Name, int] = {}
    for item, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise NamesError(f"{where}: the name of item {item} is {name!r}; expected a text or a whole number")
        if first.setdefault(name, item) != item:
            raise NamesError(f"{where}: items {first[name]} and {item} are both called {name!r}; a name has one item")
