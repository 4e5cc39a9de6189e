"""A file of users and their histories, read one user at a time.

The file holds JSON lines {"user": ..., "items": [...]}, oldest item first, plain or
gzipped; or it is parquet with these columns. "-" is standard input. The first bytes of
a file say which it is; its name need not.
"""

from __future__ import annotations

import array
import codecs
import contextlib
import dataclasses
import gzip
import io
import itertools
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.items.filters import known_items
from atspeed_jax.utils.ranges import shown

OnMistake = Literal["error", "skip"]
STANDARD_INPUT = Path("-")
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"PK\x03\x04": "a zip archive",
    codecs.BOM_UTF16_LE: "text in UTF-16",
    codecs.BOM_UTF16_BE: "text in UTF-16",
}
_OTHERS_INSIDE = {
    _GZIP: "gzipped twice",
    _PARQUET: "parquet, which is read from a file that is not compressed",
}
_DIGITS = re.compile(r"0|[1-9][0-9]{0,17}")
FROM_ZERO = "item numbers count from 0, as in the index (those of sequential_*.txt count from 1: subtract 1)"
FORMATS = 'give JSON lines in UTF-8, plain or gzipped, or a parquet file, with "user" and "items"'
NAMED = 5  # users whom a message names
INPUT_HELP = (
    'Lines {"user": ..., "items": [...]}, oldest item first, plain or gzipped, or parquet; - for standard input. '
    f"{FROM_ZERO[0].upper()}{FROM_ZERO[1:]}."
)


class UserFileError(ValueError):
    """A file of users that cannot be read."""


@dataclasses.dataclass(frozen=True)
class User:
    """One line of the input.

    Attributes:
      user: a string, number or bool, which the output repeats unchanged.
      items: [n] int64, the history, oldest item first.
    """

    user: object
    items: np.ndarray


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A file of users, and how it is read.

    Attributes:
      path: of the file; "-" for standard input.
      items: number of items in the catalog.
      on_bad: what becomes of a line that is no user. "error" raises UserFileError with
        the line's number and content; "skip" leaves the line out and reports it.
      on_unknown: what becomes of an item outside 0..items-1. "error" raises
        UserFileError; "skip" leaves the item out of the history.
      one_type: whether all users must have the type of the first one, as those of a
        parquet column.
    """

    path: Path
    items: int
    on_bad: OnMistake = "error"
    on_unknown: OnMistake = "error"
    one_type: bool = False

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
        if not _is_stream(path):
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
          UserFileError: what `on_bad`, `on_unknown` or `one_type` do not allow, or a
            file that cannot be read.
        """
        first_type, left_out, names = None, _LeftOut(), array.array("q")
        for number, line in _rows(self.path):
            where = f"{self.path}, line {number}"
            user = self._user(line, where, first=not (names or left_out.lines))
            if isinstance(user, str):
                report(f"left out: {user}")
                left_out.lines += 1
                continue
            if self.one_type:
                own_type = _column_type(user, where)
                first_type = first_type or own_type
                if own_type != first_type:
                    raise UserFileError(
                        f"{where}: user {shown(user.user)} is no {first_type} as the users before, and a parquet "
                        "column has one type; correct it, or give an --output that ends in .jsonl"
                    )
            known, unknown = known_items(user.items, self.items)
            if len(unknown) and self.on_unknown == "error":
                raise UserFileError(
                    f"{where}: item {shown(int(unknown[0]))} of user {shown(user.user)} is not in the catalog, "
                    f"whose items are 0 to {self.items - 1}; {FROM_ZERO}; correct it, or leave such items out with "
                    "--on_unknown=skip"
                )
            left_out.add(user, len(unknown))
            names.append(hash((type(user.user), user.user)))  # 8 bytes, however long a name is
            yield User(user.user, known)
        if left_out.lines or left_out.items:
            report(f"left out of {self.path}: {left_out}")
        if repeated := len(names) - len(np.unique(np.array(names))):
            report(f"note: {repeated} lines of {self.path} repeat the user of a line before; each line gets a list")

    def _user(self, line: bytes | dict, where: str, *, first: bool) -> User | str:
        """The user of a line; of a line that is no user and may be left out, what is
        wrong with it.
        """
        try:
            return _user_of(line)
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


def _is_stream(path: Path) -> bool:
    """Whether a file can be read only once: standard input, or a pipe."""
    return path == STANDARD_INPUT or not path.is_file()


def _rows(path: Path) -> Iterator[tuple[int, bytes | dict]]:
    """Yields (number from 1 on, line or parquet row) of all that is not blank."""
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            assert isinstance(file, io.BufferedReader), "a buffered file, into which one may peek"
            if not _is_stream(path) and (path.suffix.lower() == ".parquet" or file.peek(4).startswith(_PARQUET)):
                yield from _parquet_rows(path)
            else:
                yield from _json_lines(_unpacked(file, path))
        except (OSError, EOFError, zlib.error) as error:
            raise UserFileError(f"{path} cannot be read ({error or type(error).__name__}); is it whole?") from error


def _unpacked(file: io.BufferedReader, path: Path) -> io.BufferedReader | gzip.GzipFile:
    """The file as bytes of lines.

    Raises:
      UserFileError: the first bytes are those of another format.
    """
    unpacked = gzip.GzipFile(fileobj=file) if file.peek(8).startswith(_GZIP) else file
    begins = unpacked.peek(8)
    for magic, what in (_OTHERS | _OTHERS_INSIDE).items():
        if begins.startswith(magic):
            raise UserFileError(f"{path} is {what}; {FORMATS}")
    return unpacked


def _json_lines(file: io.BufferedReader | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """Yields (number, line) of every line that is not blank."""
    for number, line in enumerate(file, start=1):  # bytes: one line that is not UTF-8 is a bad line, not the end
        line = line.removeprefix(codecs.BOM_UTF8)  # of the first, or where files were joined
        if line.strip():
            yield number, line


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Yields (number, row) of every row."""
    try:
        with pq.ParquetFile(path) as file:
            if missing := {"user", "items"} - set(file.schema_arrow.names):
                raise pa.ArrowKeyError(f"it lacks {', '.join(sorted(missing))}")
            batches = file.iter_batches(batch_size=4096, columns=["user", "items"])
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), start=1)
    except pa.ArrowException as error:
        raise UserFileError(f"{path} cannot be read as parquet with columns user and items ({error})") from error


def _user_of(line: bytes | dict) -> User:
    """The user of a line or row. Raises ValueError for one that is no user."""
    value = json.loads(line.decode("utf-8")) if isinstance(line, bytes) else line
    if not isinstance(value, dict) or "user" not in value or not isinstance(value.get("items"), list):
        raise ValueError('expected {"user": ..., "items": [...]}')
    user = value["user"]
    if not isinstance(user, str | int | float) or (isinstance(user, float) and not math.isfinite(user)):
        raise ValueError(f"user {shown(user)} ({type(user).__name__}) is not a string, finite number or bool")
    return User(user, np.array([_number(item) for item in value["items"]]))


def _number(item) -> int:
    """An item as a number: 3, 3.0 as tables have it that once had a gap, or "3".

    Raises:
      ValueError: anything else.
    """
    if type(item) is int:
        return item
    if (isinstance(item, float) and item.is_integer()) or (isinstance(item, str) and _DIGITS.fullmatch(item)):
        return int(item)
    raise ValueError(f"item {shown(item)} is not the number of an item")


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
