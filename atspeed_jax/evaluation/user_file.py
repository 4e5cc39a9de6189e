"""A file of users and their histories: JSON lines {"user": ..., "items": [...]} (oldest item first), or parquet with
these columns. It is read one user at a time, whatever its size."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.items.filters import known_items

OnMistake = Literal["error", "skip"]


class UserFileError(ValueError):
    """A file of users that cannot be read."""


@dataclasses.dataclass(frozen=True)
class User:
    """One line of the input. user: a string, number, bool or None, given back as it came."""

    user: object
    items: np.ndarray


def read_users(
    path: Path, items: int, *, on_bad: OnMistake, on_unknown: OnMistake, report: Callable[[str], None]
) -> Iterator[User]:
    """The users of a JSON lines or parquet file, one by one.

    items: size of the catalogue. on_bad: a line that is no user raises UserFileError with its number and content, or is
    left out and reported. on_unknown: so does an item outside 0..items-1, or it is left out of its user's history. How
    many lines and items were left out is reported at the end.
    """
    if not path.is_file():
        raise UserFileError(f"there is no input file {path}; give JSON lines or parquet with user and items")
    lines = items_left_out = of_users = 0
    for number, line in _parquet_rows(path) if path.suffix == ".parquet" else _json_lines(path):
        shown = f"{path}, line {number}"
        try:
            user = _user_of(line)
        except (ValueError, RecursionError) as error:  # RecursionError: of lists in lists in lists
            text = line.decode("utf-8", "replace") if isinstance(line, bytes) else json.dumps(line, default=str)
            message = f"{shown}: {error}; it reads {text.strip()[:120]!r}"
            if on_bad == "error":
                raise UserFileError(f"{message}; correct it, or leave such lines out with --on_bad=skip") from error
            report(f"left out: {message}")
            lines += 1
            continue
        known, unknown = known_items(user.items, items)
        if len(unknown) and on_unknown == "error":
            raise UserFileError(
                f"{shown}: item {unknown[0]} of user {user.user!r} is not in the catalogue, whose items are 0 to "
                f"{items - 1}; correct it, or leave such items out with --on_unknown=skip"
            )
        items_left_out += len(unknown)
        of_users += len(unknown) > 0
        yield User(user.user, known)
    if lines or items_left_out:
        unknown = f"{items_left_out} unknown items of {of_users} users"
        report(f"left out of {path}: {lines} lines that are no user, {unknown}")


def count_users(path: Path) -> int | None:
    """Lines or rows of the input, for a progress bar; None where they cannot be counted."""
    try:
        return pq.read_metadata(path).num_rows if path.suffix == ".parquet" else sum(1 for _ in _json_lines(path))
    except (OSError, pa.ArrowException):
        return None  # reading will say what is wrong


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:  # bytes: one line that is not UTF-8 is a bad line, not the end of the file
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


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
    if not isinstance(user, str | int | float | None) or isinstance(user, float) and not math.isfinite(user):
        raise ValueError(f"user {user!r} ({type(user).__name__}) is not a string, finite number, bool or null")
    for item in value["items"]:
        if isinstance(item, bool) or not isinstance(item, int):
            raise ValueError(f"item {item!r} is not the number of an item")
    return User(user, np.array(value["items"]))
