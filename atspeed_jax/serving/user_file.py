"""A file of users and their histories, read one user at a time.

The file holds JSON lines {"user": ..., "items": [...]}, oldest item first, plain or
gzipped; or it is parquet with these columns (`serving.row_file`).
"""

from __future__ import annotations

import array
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pyarrow as pa

from atspeed_jax.items.filters import known_items
from atspeed_jax.items.names import FROM_ZERO, ItemNames, item_names
from atspeed_jax.serving.row_file import STANDARD_INPUT, RowForm, file_rows, is_stream
from atspeed_jax.utils.ranges import shown

OnMistake = Literal["error", "skip"]
FORMATS = 'give JSON lines in UTF-8, plain or gzipped, or a parquet file, with "user" and "items"'
NAMED = 5  # users whom a message names
NOTHING = np.zeros(0, np.int64)
INPUT_HELP = (
    'Lines {"user": ..., "items": [...]}, oldest item first, plain or gzipped, or parquet; - for standard input. '
    f"{FROM_ZERO[0].upper()}{FROM_ZERO[1:]}. In a run whose items have names, items are named."
)


class UserFileError(ValueError):
    """A file of users that cannot be read."""


_FORM = RowForm((("user", "items"),), FORMATS, UserFileError)


@dataclasses.dataclass(frozen=True)
class User:
    """One line of the input.

    Attributes:
      user: a string, number or bool, which the output repeats unchanged.
      items: [n] int64, the numbers of the history's items, oldest item first.
      exclude: numbers of items that the user never gets.
      allow: numbers of the items that the user may get; None for all.
    """

    user: object
    items: np.ndarray
    exclude: np.ndarray = dataclasses.field(default_factory=lambda: NOTHING)
    allow: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A file of users, and how it is read.

    Attributes:
      path: of the file; "-" for standard input.
      items: what the file calls the items of the catalog; or their number, for a file
        that calls them by number.
      on_bad: what becomes of a line that is no user. "error" raises UserFileError with
        the line's number and content; "skip" leaves the line out and reports it.
      on_unknown: what becomes of an item that the catalog lacks. "error" raises
        UserFileError; "skip" leaves the item out of the history.
      one_type: whether all users must have the type of the first one, as those of a
        parquet column.
      filters: user -> (exclude, allow) of `User`; None for users who may get all items.
    """

    path: Path
    items: int | ItemNames
    on_bad: OnMistake = "error"
    on_unknown: OnMistake = "error"
    one_type: bool = False
    filters: Callable[[object], tuple[np.ndarray, np.ndarray | None]] | None = None

    def check(self) -> int | None:
        """Reads the whole file once, before any work.

        Returns:
          The number of users; None for a stream, which is not read.

        Raises:
          UserFileError: no such file; a stream, where several processes would each get
            a part; or as `users`.
        """
        path = self.path
        if path != STANDARD_INPUT and (path.is_dir() or not path.exists()):
            raise UserFileError(f"there is no input file {path}; {FORMATS}, or - for standard input")
        if not is_stream(path):
            return sum(1 for _ in self.users(lambda _: None))
        if jax.process_count() > 1:
            raise UserFileError(f"--input={path}: {jax.process_count()} processes cannot share a stream; give a file")
        return None

    def users(self, report: Callable[[str], None]) -> Iterator[User]:
        """Yields the users, one by one.

        Args:
          report: gets a text for each line that is left out, and one for all that was
            left out or repeated.

        Raises:
          UserFileError: what `on_bad`, `on_unknown`, `one_type` or `filters` do not
            allow, or a file that cannot be read.
        """
        first_type, left_out, names = None, _LeftOut(), array.array("q")
        called = item_names(self.items)
        for number, line in file_rows(self.path, _FORM):
            where = f"{self.path}, line {number}"
            found = self._user(line, called, where, first=not (names or left_out.lines))
            if isinstance(found, str):
                report(f"left out: {found}")
                left_out.lines += 1
                continue
            user, given = found
            if self.one_type:
                own_type = _column_type(user, where)
                first_type = first_type or own_type
                if own_type != first_type:
                    raise UserFileError(
                        f"{where}: user {shown(user.user)} is no {first_type} as the users before, and a parquet "
                        "column has one type; correct it, or give an --output that ends in .jsonl"
                    )
            known, unknown = known_items(user.items, called.items)
            if len(unknown) and self.on_unknown == "error":
                first = int(unknown[0]) if called.names is None else given[user.items.tolist().index(-1)]
                raise UserFileError(
                    f"{where}: item {shown(first)} of user {shown(user.user)} is not in the catalog, "
                    f"{called.described}; correct it, or leave such items out with --on_unknown=skip"
                )
            left_out.add(user, len(unknown))
            names.append(hash((type(user.user), user.user)))  # 8 bytes, however long a name is
            yield User(user.user, known, *self._filters_of(user.user, where))
        if left_out.lines or left_out.items:
            report(f"left out of {self.path}: {left_out}")
        if repeated := len(names) - len(np.unique(np.array(names))):
            report(f"note: {repeated} lines of {self.path} repeat the user of a line before; each line gets a list")

    def _filters_of(self, user: object, where: str) -> tuple[np.ndarray, np.ndarray | None]:
        """(exclude, allow) of a user. Raises UserFileError if the user lacks a list."""
        try:
            return (NOTHING, None) if self.filters is None else self.filters(user)
        except ValueError as error:
            raise UserFileError(f"{where}: {error}") from error

    def _user(self, line: bytes | dict, called: ItemNames, where: str, *, first: bool) -> tuple[User, list] | str:
        """The user of a line, and the items as the line has them; of a line that is no
        user and may be left out, what is wrong with it.
        """
        try:
            return _user_of(line, called)
        except (ValueError, RecursionError) as error:  # RecursionError: of lists in lists in lists
            text = line.decode("utf-8", "replace") if isinstance(line, bytes) else json.dumps(line, default=str)
            text = shown(text.strip())
            if self.on_bad == "skip":
                return f"{where}: {error}; it reads {text}"
            if first and isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                raise UserFileError(
                    f"{where}: the file begins with {text}, which is no JSON; {FORMATS}, or leave such lines out "
                    "with --on_bad=skip"
                ) from error
            raise UserFileError(
                f"{where}: {error}; it reads {text}; correct it, or leave such lines out with --on_bad=skip"
            ) from error


@dataclasses.dataclass
class _LeftOut:
    """What was left out of a file: lines that are no user, unknown items, and the users
    who had them.
    """

    lines: int = 0
    items: int = 0
    users: int = 0
    names: list[str] = dataclasses.field(default_factory=list)

    def add(self, user: User, unknown: int) -> None:
        """Counts the unknown items of a user."""
        self.items += unknown
        self.users += unknown > 0
        if unknown and len(self.names) < NAMED:
            self.names.append(shown(user.user))

    def __str__(self) -> str:
        text = f"{self.lines} lines that are no user, {self.items} unknown items of {self.users} users"
        more = ", ..." if self.users > len(self.names) else ""
        return f"{text}: {', '.join(self.names)}{more}" if self.names else text


def _user_of(line: bytes | dict, called: ItemNames) -> tuple[User, list]:
    """The user of a line or row, and the items as the line has them. Raises ValueError
    for one that is no user.
    """
    value = json.loads(line.decode("utf-8")) if isinstance(line, bytes) else line
    if not isinstance(value, dict) or "user" not in value or not isinstance(value.get("items"), list):
        raise ValueError('expected {"user": ..., "items": [...]}')
    user = value["user"]
    if not isinstance(user, str | int | float) or (isinstance(user, float) and not math.isfinite(user)):
        raise ValueError(f"user {shown(user)} ({type(user).__name__}) is not a string, finite number or bool")
    return User(user, np.array([called.number(item) for item in value["items"]])), value["items"]


def _column_type(user: User, where: str) -> pa.DataType:
    """The type of a parquet column that holds this user. Raises UserFileError if none
    does.
    """
    try:
        return pa.scalar(user.user).type
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise UserFileError(
            f"{where}: user {shown(user.user)} does not fit a parquet column ({error}); correct it, or give an "
            "--output that ends in .jsonl"
        ) from error
