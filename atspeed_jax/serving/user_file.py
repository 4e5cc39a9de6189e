"""A file of users and their histories: JSON lines {"user": ..., "items": [...]} (oldest item first), plain or gzipped,
or parquet with these columns; "-" is standard input. What a file is, its first bytes tell; its name need not. It is
read one user at a time, whatever its size."""

from __future__ import annotations

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
INPUT_HELP = (
    'Lines {"user": ..., "items": [...]}, oldest item first, plain or gzipped, or parquet; - for standard input. '
    f"{FROM_ZERO[0].upper()}{FROM_ZERO[1:]}."
)


class UserFileError(ValueError):
    """A file of users that cannot be read."""


@dataclasses.dataclass(frozen=True)
class User:
    """One line of the input. user: a string, number or bool, given back as it came."""

    user: object
    items: np.ndarray


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A file of users, and how it is read.

    items: size of the catalogue. on_bad: a line that is no user raises UserFileError with its number and content, or is
    left out and reported. on_unknown: so does an item outside 0..items-1, or it is left out of its user's history.
    one_type: a user of another type than the first, or of none that parquet has, raises UserFileError.
    """

    path: Path
    items: int
    on_bad: OnMistake = "error"
    on_unknown: OnMistake = "error"
    one_type: bool = False

    def check(self) -> int | None:
        """How many users there are, all of which are read once; None of a stream, which is not read.

        Raises UserFileError as `users` does, but before any work; and if there is no such file, or a stream where there
        are several processes, of which each would get a part.
        """
        path = self.path
        if path != STANDARD_INPUT and (path.is_dir() or not path.exists()):
            raise UserFileError(
                f"there is no input file {path}; give JSON lines or parquet with user and items, or - for standard "
                "input"
            )
        if not _is_stream(path):
            return sum(1 for _ in self.users(lambda _: None))
        if jax.process_count() > 1:
            raise UserFileError(f"--input={path}: {jax.process_count()} processes cannot share a stream; give a file")
        return None

    def users(self, report: Callable[[str], None]) -> Iterator[User]:
        """The users, one by one. How many lines and items were left out is reported at the end."""
        lines = items_left_out = of_users = 0
        first_type = None
        for number, line in _rows(self.path):
            place = f"{self.path}, line {number}"
            try:
                user = _user_of(line)
            except (ValueError, RecursionError) as error:  # RecursionError: of lists in lists in lists
                text = line.decode("utf-8", "replace") if isinstance(line, bytes) else json.dumps(line, default=str)
                message = f"{place}: {error}; it reads {shown(text.strip())}"
                if self.on_bad == "error":
                    raise UserFileError(f"{message}; correct it, or leave such lines out with --on_bad=skip") from error
                report(f"left out: {message}")
                lines += 1
                continue
            if self.one_type:
                own_type = _column_type(user, place)
                first_type = first_type or own_type
                if own_type != first_type:
                    raise UserFileError(
                        f"{place}: user {shown(user.user)} is no {first_type} as the users before, and a parquet "
                        "column has one type; correct it, or give an --output that ends in .jsonl"
                    )
            known, unknown = known_items(user.items, self.items)
            if len(unknown) and self.on_unknown == "error":
                raise UserFileError(
                    f"{place}: item {shown(int(unknown[0]))} of user {shown(user.user)} is not in the catalogue, "
                    f"whose items are 0 to {self.items - 1}; {FROM_ZERO}; correct it, or leave such items out with "
                    "--on_unknown=skip"
                )
            items_left_out += len(unknown)
            of_users += len(unknown) > 0
            yield User(user.user, known)
        if lines or items_left_out:
            unknown = f"{items_left_out} unknown items of {of_users} users"
            report(f"left out of {self.path}: {lines} lines that are no user, {unknown}")


def _is_stream(path: Path) -> bool:
    """Whether it can be read but once: standard input, or a pipe."""
    return path == STANDARD_INPUT or not path.is_file()


def _rows(path: Path) -> Iterator[tuple[int, bytes | dict]]:
    """(number from 1 on, line or parquet row) of all that is not blank."""
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
    """The file as bytes of lines; UserFileError if it is something else."""
    unpacked = gzip.GzipFile(fileobj=file) if file.peek(8).startswith(_GZIP) else file
    begins = unpacked.peek(8)
    for magic, what in (_OTHERS | _OTHERS_INSIDE).items():
        if begins.startswith(magic):
            raise UserFileError(f"{path} is {what}; give JSON lines in UTF-8, plain or gzipped, or a parquet file")
    return unpacked


def _json_lines(file: io.BufferedReader | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(file, start=1):  # bytes: one line that is not UTF-8 is a bad line, not the end
        line = line.removeprefix(codecs.BOM_UTF8)  # of the first, or where files were joined
        if line.strip():
            yield number, line


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        with pq.ParquetFile(path) as file:
            if missing := {"user", "items"} - set(file.schema_arrow.names):
                raise pa.ArrowKeyError(f"it lacks {', '.join(sorted(missing))}")
            batches = file.iter_batches(batch_size=4096, columns=["user", "items"])
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), start=1)
    except pa.ArrowException as error:
        raise UserFileError(f"{path} cannot be read as parquet with columns user and items ({error})") from error


def _user_of(line: bytes | dict) -> User:
    value = json.loads(line.decode("utf-8")) if isinstance(line, bytes) else line
    if not isinstance(value, dict) or "user" not in value or not isinstance(value.get("items"), list):
        raise ValueError('expected {"user": ..., "items": [...]}')
    user = value["user"]
    if not isinstance(user, str | int | float) or (isinstance(user, float) and not math.isfinite(user)):
        raise ValueError(f"user {shown(user)} ({type(user).__name__}) is not a string, finite number or bool")
    return User(user, np.array([_number(item) for item in value["items"]]))


def _number(item) -> int:
    """An item as a number: as tables hold them that had a gap once (3.0), or texts ("3"), too."""
    if type(item) is int:
        return item
    if (isinstance(item, float) and item.is_integer()) or (isinstance(item, str) and _DIGITS.fullmatch(item)):
        return int(item)
    raise ValueError(f"item {shown(item)} is not the number of an item")


def _column_type(user: User, place: str) -> pa.DataType:
    try:
        return pa.scalar(user.user).type
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise UserFileError(
            f"{place}: user {shown(user.user)} does not fit a parquet column ({error}); correct it, or give an "
            "--output that ends in .jsonl"
        ) from error
