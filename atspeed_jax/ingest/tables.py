"""Files of rows as DuckDB reads them: CSV, TSV, JSON lines and parquet, gzipped or not.

Every column of a CSV is read as text, so that a name such as "007" stays what it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from atspeed_jax.ingest.given_files import files_of, kind_of
from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.ingest.text_files import LINE, explained, first_line, first_objects, keys_of_objects, open_text, packed

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_COUNTED = 5_000_000  # rows whose lines are counted for a message
_DELIMITERS = ("::", ",", "\t", ";", "|")


@dataclass(frozen=True)
class Table:
    """Files of one form.

    Attributes:
      files: that are read one after the other.
      sql: an expression of all their rows, for FROM.
      columns: their names.
      first_line: number of the line of the first row, for messages; 0 where rows are
        no lines.
      whole: columns whose values may be whole numbers: all of a CSV, and those of JSON
        and parquet that are.
      objects: columns of JSON that hold objects, whose keys are columns too.
      encoding: of text files.
      quote: what a cell may stand in, line breaks and all; "" for none.
    """

    files: tuple[Path, ...]
    sql: str
    columns: tuple[str, ...]
    first_line: int = 0
    whole: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    encoding: str = "utf-8"
    quote: str = ""

    @property
    def name(self) -> str:
        """The files, for messages."""
        return str(self.files[0]) if len(self.files) == 1 else f"{self.files[0]} and {len(self.files) - 1} more"


def line_of_row(table: Table, row: int) -> int | None:
    """Finds the line on which a row begins, for a message.

    A cell in quotes may hold line breaks, and blank lines are no rows.

    Args:
      table: of one file.
      row: from 1 on.

    Returns:
      The line, from 1 on; None where rows are no lines, or lie in several files or too
      far behind.
    """
    if not table.first_line or len(table.files) != 1 or row > _COUNTED:
        return None
    (file,) = table.files
    left, is_open = row + table.first_line - 1, False
    may_be_blank = bool(table.quote) and len(table.columns) == 1
    with open_text(file, table.encoding, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            left -= not is_open and (may_be_blank or bool(line.strip("\r\n")))
            if not left:
                return number
            is_open ^= bool(table.quote) and line.count(table.quote) % 2 == 1
    return None


def open_table(
    connection: duckdb.DuckDBPyConnection,
    pattern: str,
    *,
    header: Sequence[str] | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> Table:
    """Opens files.

    Args:
      connection: that will read them.
      pattern: a file, or a pattern of files that have the same columns.
      header: names of the columns of a CSV that has no header; None for its first line.
      encoding: of a CSV.
      delimiter: of a CSV; None for the one that the first line has.

    Raises:
      IngestError: no such file, an unknown form, or files that cannot be read.
    """
    files = files_of(pattern)
    kinds = {kind_of(file) for file in files}
    if len(kinds) > 1:
        raise IngestError(f"{pattern}: files of several forms: {', '.join(sorted(kinds))}; give those of one form.")
    if kinds == {"csv"}:
        return _open_csv(files, header, encoding, delimiter)
    if kinds == {"json"}:
        return _open_json(files)
    sql = f"read_parquet({_listed(files)})"
    with explained(str(files[0])):
        described = connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
    whole = frozenset(row[0] for row in described if row[1] in _INTEGERS)
    return Table(files, sql, tuple(row[0] for row in described), 0, whole)


def _listed(files: Sequence[Path]) -> str:
    """Files as a list in SQL; what would be a pattern to DuckDB stands for itself."""
    escaped = (re.sub(r"[\[*?]", lambda mark: f"[{mark[0]}]", str(file)) for file in files)
    return "[" + ", ".join(map(quoted, escaped)) + "]"


def _open_csv(files: tuple[Path, ...], header: Sequence[str] | None, encoding: str, delimiter: str | None) -> Table:
    """Opens CSV files, whose delimiter and header are those of the first line."""
    lines = {file: first_line(file, encoding) for file in files}
    first = lines[files[0]]
    if re.fullmatch(r"sep=\S?", first.strip(), re.I) and header is None:
        raise IngestError(f"{files[0]}, line 1: {first!r} is a mark of Excel, no line of columns; remove this line.")
    if delimiter is None:
        known = [known for known in _DELIMITERS if known in first]
        delimiter = "::" if "::" in known else max(known, key=first.count, default=",")
    if header is None:
        header = first.split(delimiter) if len(delimiter) > 1 else next(csv.reader([first], delimiter=delimiter), [])
        other = next((file for file, line in lines.items() if line != first), None)
        if other is not None:
            raise IngestError(
                f"{other}: the header {lines[other]!r} differs from {first!r} of {files[0]}; give both alike."
            )
        number = 2
    else:
        number = 1
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]  # pandas names no index
    if len({name.lower() for name in names}) < len(names):
        raise IngestError(
            f"{files[0]}, line 1: columns {names}; expected a name for each column, each once (a and A are one name)."
        )
    kinds = "{" + ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names) + "}"
    quote = "" if delimiter in ("::", "|") else '"'  # MovieLens quotes nothing
    sql = (
        f"read_csv({_listed(files)}, auto_detect=false, header={str(number == 2).lower()}, delim={quoted(delimiter)}, "
        f"quote='{quote}', escape='{quote}', strict_mode=true, columns={kinds}, encoding={quoted(encoding)}, "
        f"compression='{packed(files)}', max_line_size={LINE})"
    )
    return Table(files, sql, tuple(names), number, frozenset(names), encoding=encoding, quote=quote)


def _open_json(files: tuple[Path, ...]) -> Table:
    """Opens files of JSON lines, whose columns are the keys of the first lines.

    A key of an object in an object is a column too, such as reader.id. Every value is
    read as text, so that no value is taken for a date.
    """
    found = keys_of_objects(entry for file in files for entry in first_objects(file))
    paths = {".".join(path): path for path in found if '"' not in "".join(path[1:])}
    paths |= {path[0]: path for path in found if len(path) == 1}  # a key with a dot goes before a path
    whole = {name: found[path] for name, path in paths.items()}
    if not whole:
        raise IngestError(f"{files[0]}: no object with a key; expected a JSON object on each line.")
    lower = {key.lower() for key in whole}
    if len(lower) < len(whole):  # DuckDB does not tell capital letters apart
        whole = {key: value for key, value in whole.items() if key not in _repeated(whole)}
    kinds = "{" + ", ".join(f"{quoted(key)}: 'JSON'" for key in dict.fromkeys(paths[name][0] for name in whole)) + "}"
    texts = ", ".join(
        f"{column(paths[name][0])}->>{quoted('$' + ''.join(f'.{column(key)}' for key in paths[name][1:]))} "
        f"AS {column(name)}"
        for name in whole
    )
    sql = (
        f"(SELECT {texts} FROM read_json({_listed(files)}, format='newline_delimited', columns={kinds}, "
        f"compression='{packed(files)}', maximum_object_size={2 * LINE}))"
    )
    objects = frozenset(".".join(path[:-1]) for path in paths.values() if len(path) > 1)
    return Table(files, sql, tuple(whole), 1, frozenset(name for name in whole if whole[name]), objects)


def _repeated(keys: Sequence[str] | Mapping[str, bool]) -> set[str]:
    """Keys that differ from an earlier one in capital letters alone."""
    seen: set[str] = set()
    return {key for key in keys if key.lower() in seen or seen.add(key.lower())}


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def column(name: str) -> str:
    """A name of a column as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def name_sql(connection: duckdb.DuckDBPyConnection, table: Table, name: str) -> str:
    """An SQL expression of a column of names: integers of 64 bits, or texts, or NULL for a blank one.

    Integers that a column of floats holds, as that of pandas with gaps does, are texts
    without a point.

    Raises:
      IngestError: the column holds lists or structures.
    """
    cell = column(name)
    with explained(table.name):
        kind = str(connection.execute(f"DESCRIBE SELECT {cell} FROM {table.sql}").fetchall()[0][1])
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP")):
        raise IngestError(f"{table.name}: column {name} holds {kind}; expected names, as texts or numbers.")
    if kind in _INTEGERS:
        return f"CAST({cell} AS BIGINT)"
    if kind in ("DOUBLE", "FLOAT"):
        whole = f"abs({cell}) < 9e15 AND {cell} = trunc({cell})"
        return f"CASE WHEN {whole} THEN CAST({cell} AS BIGINT)::VARCHAR WHEN isfinite({cell}) THEN {cell}::VARCHAR END"
    return f"nullif(trim({cell}::VARCHAR), '')"


def column_names(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """Returns the columns of a table of the database."""
    return [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
