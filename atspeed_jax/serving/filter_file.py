"""A file of items that may, or may not, be listed: for all users, or per user.

For all users it is a text file with an item per line, a JSON list, or a parquet file
with a column item. Per user it is as a file of histories: JSON lines
{"user": ..., "items": [...]}, or parquet with these columns. Text may be gzipped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from atspeed_jax.items.names import ItemNames, Name
from atspeed_jax.serving.row_file import RowForm, file_rows, is_stream
from atspeed_jax.serving.user_file import NOTHING, OnMistake
from atspeed_jax.utils.ranges import shown

FILTER_FORMATS = (
    'give an item per line, a JSON list of items, or parquet with a column item, for all users; or {"user": ..., '
    '"items": [...]} per line, or parquet with columns user and items, for lists per user'
)


class FilterFileError(ValueError):
    """A file of items for lists that cannot be read."""


_FORM = RowForm((("user", "items"), ("item",)), FILTER_FORMATS, FilterFileError)


@dataclasses.dataclass(frozen=True, eq=False)
class FilterFile:
    """What a file of items says.

    Attributes:
      path: of the file.
      for_all: [n] int64, items for all users; None for a file of lists per user.
      by_user: user as text -> [n] int64, the items of its list.
    """

    path: Path
    for_all: np.ndarray | None
    by_user: dict[str, np.ndarray]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any user or item."""
        lists = {} if self.for_all is None else {"": self.for_all}
        digest = hashlib.sha256(repr(self.for_all is None).encode())
        for user, items in itertools.chain(lists.items(), sorted(self.by_user.items())):
            digest.update(json.dumps([user, items.tolist()]).encode())
        return digest.hexdigest()[:16]

    def of(self, user: object) -> np.ndarray | None:
        """Returns the items of a user's list, [n] int64; None for a user without one."""
        return self.by_user.get(str(user))


def read_filter(path: Path, names: ItemNames, on_unknown: OnMistake, say: Callable[[str], None]) -> FilterFile:
    """Reads a file of items. Lists per user lie in memory; a user may be a number in
    one file and the text of the number in another.

    Args:
      path: of the file.
      names: what it calls the items.
      on_unknown: what becomes of an item that the catalog lacks: "error" raises
        FilterFileError; "skip" leaves it out.
      say: gets a line that counts what was left out.

    Raises:
      FilterFileError: no such file, another content, an unknown item, or two lists of
        one user.
    """
    if is_stream(path):
        raise FilterFileError(f"there is no file {path}; {FILTER_FORMATS}")
    for_all, by_user, unknown = [], {}, []
    for where, user, given in _entries(path):
        try:
            items = [names.number(item) for item in given]
        except ValueError as error:
            raise FilterFileError(f"{where}: {error}; {FILTER_FORMATS}") from error
        bad = [item for item, number in zip(given, items, strict=True) if not 0 <= number < names.items]
        if bad and on_unknown == "error":
            raise FilterFileError(
                f"{where}: item {shown(bad[0])} is not in the catalog, {names.described}; correct it, or leave such "
                "items out with --on_unknown=skip"
            )
        unknown += bad
        known = [number for number in items if 0 <= number < names.items]
        if user is None:
            for_all += known
        elif str(user) in by_user:
            raise FilterFileError(f"{where}: user {shown(user)} has a list already; a user has one list")
        else:
            by_user[str(user)] = np.unique(np.array(known, np.int64))
    if unknown:
        say(f"left out of {path}: {len(unknown)} unknown items, such as {shown(unknown[0])}")
    return FilterFile(path, None if by_user else np.unique(np.array(for_all, np.int64)), by_user)


def _entries(path: Path) -> Iterator[tuple[str, object, list]]:
    """Yields (place for messages, user, items); user None for items for all users."""
    rows = file_rows(path, _FORM)
    first = next(rows, None)
    if first is None:
        raise FilterFileError(f"{path} holds no item; {FILTER_FORMATS}")
    begins = first[1].lstrip()[:1] if isinstance(first[1], bytes) else b""
    if begins == b"[":
        lines = (line for _, line in itertools.chain([first], rows) if isinstance(line, bytes))
        yield f"{path}", None, _json_list(path, b"".join(lines))
        return
    for number, line in itertools.chain([first], rows):
        where = f"{path}, line {number}"
        if isinstance(line, bytes) and begins != b"{":
            yield where, None, [_text(line, where)]
        else:
            yield where, *_user_and_items(line, where)


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise FilterFileError(f"{where}: {shown(line)} is no UTF-8 ({error}); {FILTER_FORMATS}") from error


def _json_list(path: Path, text: bytes) -> list:
    try:
        found = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FilterFileError(f"{path} begins as a JSON list, but is none ({error}); {FILTER_FORMATS}") from error
    assert isinstance(found, list), "it begins with a bracket"
    return found


def _user_and_items(line: bytes | dict, where: str) -> tuple[object, list]:
    """(user, items) of a line or row; user None for a row of one item for all users."""
    try:
        row = json.loads(line.decode("utf-8")) if isinstance(line, bytes) else line
    except (ValueError, RecursionError) as error:
        raise FilterFileError(f"{where}: {shown(line)} is no JSON ({error}); {FILTER_FORMATS}") from error
    if isinstance(row, dict) and "item" in row and isinstance(line, dict):
        return None, [row["item"]]
    whole = isinstance(row, dict) and isinstance(row.get("items"), list)
    if not whole or not isinstance(row.get("user"), str | int | float):
        raise FilterFileError(f'{where}: {shown(line)}; expected {{"user": ..., "items": [...]}}')
    return row["user"], row["items"]


@dataclasses.dataclass(frozen=True, eq=False)
class UserFilters:
    """Lists per user of what a user may get.

    Attributes:
      allow: lists of the items that a user may get; None for all items.
      exclude: lists of the items that a user never gets; None for no item.
      without_allow: what a user without a list in `allow` may get: "error" refuses such
        a user, "all" means all items.
    """

    allow: FilterFile | None = None
    exclude: FilterFile | None = None
    without_allow: str = "error"

    def of(self, user: object) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (items that the user never gets, items that it may get or None for
        all).

        Raises:
          FilterFileError: the user needs an allow list and has none.
        """
        excluded = None if self.exclude is None else self.exclude.of(user)
        allowed = None if self.allow is None else self.allow.of(user)
        if self.allow is not None and allowed is None and self.without_allow == "error":
            raise FilterFileError(
                f"user {shown(user)} has no list in {self.allow.path}; add one, or let such users get all items with "
                "--without_allow=all"
            )
        return NOTHING if excluded is None else excluded, allowed


def items_for_all(given: str | Path | Sequence[Name] | None, names: ItemNames, what: str) -> np.ndarray | None:
    """Finds the items of a list for all users, for a program.

    Args:
      given: the names of the items, or the file of a list; None for no list.
      names: what the list calls the items.
      what: the argument, for messages.

    Returns:
      [n] int64; None for no list.

    Raises:
      FilterFileError: as `read_filter`, or a file of lists per user.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        found = read_filter(Path(given), names, "error", lambda text: None)
        if found.for_all is None:
            raise FilterFileError(
                f"{what}={str(given)!r} has lists per user: give these with the histories, one list per history"
            )
        return found.for_all
    return items_of_list(given, names, what)


def items_of_list(given: Sequence[Name] | np.ndarray, names: ItemNames, what: str) -> np.ndarray:
    """Finds the items that a list calls, [n] int64.

    Raises:
      FilterFileError: no list of items, or an unknown item.
    """
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__"):
        raise FilterFileError(f"{what} is {shown(given)}: expected a list of items")
    values = [value.item() if isinstance(value, np.generic) else value for value in given]
    try:
        items = [names.number(value) for value in values]
    except ValueError as error:
        raise FilterFileError(f"{what}: {error}") from error
    for value, item in zip(values, items, strict=True):
        if not 0 <= item < names.items:
            raise FilterFileError(f"{what}: item {shown(value)} is not in the catalog, {names.described}")
    return np.unique(np.array(items, np.int64))
