"""Names of items: what the log of the user calls them, such as an ASIN."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

Name = str | int

NAMES_FILE = "names.json"
_EXPECTED = 'expected a list with one text or whole number per item, such as ["B01", "B02", ...]'


class NamesError(ValueError):
    """A file of names that cannot be read."""


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
            raise NamesError(f"{where}: the name of item {item} is {name!r}; {_EXPECTED}")
        if first.setdefault(name, item) != item:
            raise NamesError(f"{where}: items {first[name]} and {item} are both called {name!r}; a name has one item")
