"""Files of rows as DuckDB reads them: CSV, TSV, JSON lines and parquet, gzipped or not.

Every column of a CSV is read as text, so that a name such as "007" stays what it is.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from atspeed_jax.ingest.settings import IngestError

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".inter": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
_DELIMITERS = ",\t;|"
ENDINGS = ", ".join((*_KINDS, *(f"{ending}.gz" for ending, kind in _KINDS.items() if kind != "parquet")))


@dataclass(frozen=True)
class Table:
    """Files of one form.

    Attributes:
      files: that are read one after the other.
      sql: an expression of all their rows, for FROM.
      columns: their names.
      first_line: number of the line of the first row, for messages; 0 where rows are
        no lines.
      typed: whether the files say what is a text and what a number.
    """

    files: tuple[Path, ...]
    sql: str
    columns: tuple[str, ...]
    first_line: int = 0
    typed: bool = False

    @property
    def name(self) -> str:
        """The files, for messages."""
        return str(self.files[0]) if len(self.files) == 1 else f"{self.files[0]} and {len(self.files) - 1} more"


def files_of(pattern: str) -> tuple[Path, ...]:
    """The files that a name or a pattern such as log/*.csv names, in the order of names.

    Raises:
      IngestError: no such file.
    """
    found = sorted(map(Path, glob.glob(pattern))) if glob.has_magic(pattern) else [Path(pattern)]  # noqa: PTH207
    files = tuple(file for file in found if file.is_file())
    if not files:
        raise IngestError(f"{pattern}: no such file; give a file or a pattern of files, named {ENDINGS}.")
    return files


def kind_of(file: Path) -> str:
    """Returns csv, json or parquet.

    Raises:
      IngestError: the name has no known ending.
    """
    name = file.name.lower().removesuffix(".gz")
    kind = _KINDS.get(Path(name).suffix)
    if kind is None:
        raise IngestError(f"{file}: the name says no known form; expected a name that ends in {ENDINGS}.")
    return kind


def open_table(
    connection: duckdb.DuckDBPyConnection, pattern: str, *, header: Sequence[str] | None = None, encoding: str = "utf-8"
) -> Table:
    """Opens files.

    Args:
      connection: that will read them.
      pattern: a file, or a pattern of files that have the same columns.
      header: names of the columns of a CSV that has no header; None for its first line.
      encoding: of a CSV.

    Raises:
      IngestError: no such file, an unknown form, or files that cannot be read.
    """
    files = files_of(pattern)
    kinds = {kind_of(file) for file in files}
    if len(kinds) > 1:
        raise IngestError(f"{pattern}: files of several forms: {', '.join(sorted(kinds))}; give those of one form.")
    listed = "[" + ", ".join(quoted(str(file)) for file in files) + "]"
    if kinds == {"csv"}:
        return _open_csv(files, listed, header, encoding)
    if kinds == {"json"}:
        sql = f"read_json({listed}, format='newline_delimited', union_by_name=true, maximum_object_size=67108864)"
    else:
        sql = f"read_parquet({listed})"
    with explained(str(files[0])):
        columns = tuple(row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall())
    return Table(files, sql, columns, 1 if kinds == {"json"} else 0, typed=True)


def _open_csv(files: tuple[Path, ...], listed: str, header: Sequence[str] | None, encoding: str) -> Table:
    """Opens CSV files, whose delimiter and header are those of the first line."""
    lines = {file: _first_line(file, encoding) for file in files}
    first = lines[files[0]]
    delimiter = max(_DELIMITERS, key=first.count) if any(map(first.count, _DELIMITERS)) else ","
    names = list(header) if header is not None else next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
    names = [name.strip() for name in names]
    other = next((file for file, line in lines.items() if header is None and line != first), None)
    if other is not None:
        raise IngestError(
            f"{other}: the header {lines[other]!r} differs from {first!r} of {files[0]}; give both alike."
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice or not all(names):
        raise IngestError(f"{files[0]}, line 1: columns {names}; expected a name for each column, each once.")
    kinds = "{" + ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names) + "}"
    sql = (
        f"read_csv({listed}, auto_detect=false, header={str(header is None).lower()}, delim={quoted(delimiter)}, "
        f"quote='\"', escape='\"', strict_mode=true, columns={kinds}, encoding={quoted(encoding)}, "
        "max_line_size=33554432)"
    )
    return Table(files, sql, tuple(names), 2 if header is None else 1)


def _first_line(file: Path, encoding: str) -> str:
    """The first line of a text file."""
    try:
        with gzip.open(file, "rt", encoding=encoding) if file.suffix == ".gz" else file.open(encoding=encoding) as text:
            line = text.readline(1 << 20)
    except UnicodeDecodeError as error:
        raise IngestError(f"{file}, line 1: is no {encoding} text ({error}); save it as UTF-8.") from error
    except (OSError, EOFError) as error:
        raise IngestError(f"{file}: cannot be read ({error}).") from error
    if not line.strip():
        raise IngestError(f"{file}: is empty, or begins with an empty line; expected a line with the names of columns.")
    return line.lstrip("\ufeff").rstrip("\r\n")


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def column(name: str) -> str:
    """A name of a column as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what DuckDB says of a file into an IngestError with file, line and content."""
    try:
        yield
    except duckdb.Error as error:
        lines = [line.strip() for line in str(error).splitlines()]
        told = [line for line in lines if line and not line.startswith(("Possible", "*", "delimiter", "quote"))]
        raise IngestError(f"{name}: cannot be read: {'; '.join(told[:4])}") from error


def named_columns(table: Table, wanted: Mapping[str, str | None], usual: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Finds the columns of a table.

    Args:
      table: that has them.
      wanted: role -> the name that the user gave, or None.
      usual: role -> names that are taken if the user gave none, the best first, in
        small letters. A capital letter or a type behind a colon does not matter.

    Returns:
      role -> column, of the roles that have one.

    Raises:
      IngestError: a column that the user named is missing.
    """
    plain = {name.partition(":")[0].strip().lower(): name for name in reversed(table.columns)}
    found = {}
    for role, given in wanted.items():
        if given is not None:
            if given not in table.columns:
                raise IngestError(
                    f"{table.name}: no column {given!r} for the {role}; it has {', '.join(table.columns)}."
                )
            found[role] = given
            continue
        for name in usual.get(role, ()):
            if name in plain and plain[name] not in found.values():
                found[role] = plain[name]
                break
    return found


def need(table: Table, found: Mapping[str, str], roles: Sequence[str], flags: Mapping[str, str]) -> None:
    """Checks that the roles have a column.

    Raises:
      IngestError: one has none; it lists the columns that are there.
    """
    missing = [role for role in roles if role not in found]
    if missing:
        given = " ".join(f"--{flags[role]}=NAME" for role in missing)
        raise IngestError(
            f"{table.name}: no column is known as the {' or the '.join(missing)}; it has {', '.join(table.columns)}. "
            f"Name it: {given}."
        )
