"""Logs that are published in a form of their own: Amazon reviews and MovieLens."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from atspeed_jax.ingest.given_files import files_of, kind_of
from atspeed_jax.ingest.settings import Columns, Files, IngestError
from atspeed_jax.ingest.tables import Table, open_table
from atspeed_jax.ingest.text_files import first_line, open_text

_AMAZON = {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"}
_COLUMNS = {
    "amazon2014": _AMAZON,
    "amazon2018": _AMAZON,
    "amazon2023": {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"},
    "movielens": {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"},
}
_RATINGS_ONLY = {  # columns of the ratings of Amazon, which have no header
    "amazon2014": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "amazon2018": ("asin", "reviewerID", "overall", "unixReviewTime"),
}
_BLOCK = 1 << 22  # characters that are read at once
_FOUR_CELLS = re.compile(r"([A-Z0-9]{10,40}),([A-Z0-9]{10,40}),[0-9](?:\.[0-9])?,[0-9]{9,13}")
_AMAZON_USER = re.compile(r"A[A-Z0-9]{11,}")  # an item has 10 characters, and begins with B or a digit
_MOVIELENS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_U_ITEM = ("movieId", "title", "released", "video", "url", *(f"genre{number}" for number in range(19)))


@dataclass(frozen=True)
class Form:
    """How files are read.

    Attributes:
      name: of the form, for messages.
      header, delimiter, encoding: as `open_table` takes them; None for what the files
        say.
      columns: role -> column, where the form fixes it.
    """

    name: str = "table"
    header: tuple[str, ...] | None = None
    delimiter: str | None = None
    encoding: str | None = None
    columns: dict[str, str] = field(default_factory=dict)


def log_form(pattern: str, given: Files) -> Form:
    """Finds the form of a log.

    Raises:
      IngestError: ratings of Amazon whose columns cannot be told apart.
    """
    file, name = files_of(pattern)[0], given.format
    if name == "table" or kind_of(file) != "csv":
        return Form(name, columns=_COLUMNS.get(name, {}))
    line = first_line(file, given.encoding or "latin-1")
    if name in ("auto", "movielens"):
        if re.fullmatch(r"\d+(::\d+(\.\d+)?){3}", line):  # ratings.dat
            return Form("movielens", _MOVIELENS, "::", columns=_COLUMNS["movielens"])
        if re.fullmatch(r"\d+\t\d+\t\d\t\d{9,10}", line):  # u.data
            return Form("movielens", _MOVIELENS, "\t", columns=_COLUMNS["movielens"])
    cells = _FOUR_CELLS.fullmatch(line)
    if cells and name in ("auto", *_RATINGS_ONLY):
        if name == "auto":
            first, second = (bool(_AMAZON_USER.fullmatch(cell)) for cell in cells.groups())
            if first == second:
                raise IngestError(
                    f"{file}, line 1: {line!r} looks like ratings of Amazon, but which cell is the user is unclear: "
                    "give --format=amazon2014 (user first) or --format=amazon2018 (item first)."
                )
            name = "amazon2014" if first else "amazon2018"
        return Form(name, _RATINGS_ONLY[name], ",", columns=_AMAZON)
    if name in _RATINGS_ONLY and re.fullmatch(r"[^,]+,[^,]+,[^,]+,[0-9]{9,13}", line):  # names of another form
        return Form(name, _RATINGS_ONLY[name], ",", columns=_AMAZON)
    return Form(name, columns=_COLUMNS.get(name, {}))


def items_form(pattern: str, given: Files) -> Form:
    """Finds the form of an item file."""
    file = files_of(pattern)[0]
    if given.format in ("auto", "movielens") and kind_of(file) == "csv":
        line = first_line(file, "latin-1")
        if re.match(r"\d+::.*::", line):  # movies.dat
            return Form("movielens", _MOVIES, "::", _encoding([file]))
        if re.match(r"\d+\|", line) and line.count("|") == len(_U_ITEM) - 1:  # u.item
            return Form("movielens", _U_ITEM, "|", _encoding([file]))
    item = _COLUMNS.get(given.format, {}).get("item")
    return Form(given.format, columns={"item_name": item} if item else {})


def _encoding(files: Iterable[Path], otherwise: str = "latin-1") -> str:
    """Encoding of text files: UTF-8 if all are, else `otherwise`.

    The titles of MovieLens are UTF-8 from 10M on, latin-1 before. Of a log and an item
    file with --encoding, one may be UTF-8.
    """
    try:
        for file in files:
            with open_text(file) as text:
                while text.read(_BLOCK):
                    pass
    except UnicodeDecodeError:
        return otherwise
    except (OSError, EOFError) as error:
        raise IngestError(f"{file}: cannot be read ({error}); fetch or write the file again.") from error
    return "utf-8"


def open_as(connection: duckdb.DuckDBPyConnection, pattern: str, form: Form, given: Files, directory: Path) -> Table:
    """Opens files in their form.

    Args:
      connection: that will read them.
      pattern: of the files.
      form: of the files.
      given: encoding and delimiter that the user named. Files in UTF-8 are read as such.
      directory: for a copy of files of Python literals, as JSON lines.

    Raises:
      IngestError: files that cannot be read.
    """
    files = files_of(pattern)
    if {kind_of(file) for file in files} == {"json"} and _is_literal(files[0]):
        copies = [_as_json(file, directory / f"literals-{number}.jsonl") for number, file in enumerate(files)]
        table = open_table(connection, ",".join(map(str, copies)))
        return dataclasses.replace(table, files=files)
    encoding = given.encoding or form.encoding or "utf-8"
    if given.encoding is not None and {kind_of(file) for file in files} == {"csv"}:
        encoding = _encoding(files, otherwise=given.encoding)
    return open_table(
        connection,
        pattern,
        header=form.header,
        encoding=encoding,
        delimiter=given.delimiter or form.delimiter,
    )


def _is_literal(file: Path) -> bool:
    """Whether the first line is a Python dict and no JSON, as metadata of 2014 are."""
    line = first_line(file)
    try:
        json.loads(line)
    except ValueError:
        try:
            return isinstance(ast.literal_eval(line.strip()), dict)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
    return False


def _as_json(file: Path, copy: Path) -> Path:
    """Writes Python literals as JSON lines. Nothing is evaluated but literals."""
    with open_text(file) as lines, copy.open("w", encoding="utf-8") as output:
        for number, line in zip(itertools.count(1), lines, strict=False):
            try:
                value = ast.literal_eval(line.strip() or "{}")
                output.write(json.dumps(value if isinstance(value, dict) else [value], ensure_ascii=False) + "\n")
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
                raise IngestError(
                    f"{file}, line {number}: {line.strip()[:200]!r} is no Python literal; correct or remove the line."
                ) from error
    return copy


def with_columns(columns: Columns, form: Form) -> Columns:
    """Adds the columns of a form to those that the user named."""
    fixed = {role: name for role, name in form.columns.items() if getattr(columns, role) is None}
    return dataclasses.replace(columns, **fixed)
