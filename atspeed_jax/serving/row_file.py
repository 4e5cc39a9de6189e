"""A file with a row per user, or per item: JSON lines, plain or gzipped, or parquet.

"-" is standard input. The first bytes of a file say which it is; its name need not.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import gzip
import io
import itertools
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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


@dataclasses.dataclass(frozen=True)
class RowForm:
    """What a file of rows should hold.

    Attributes:
      columns: of a parquet file: the columns of one of these forms, the first one that
        the file has.
      formats: what to give, for messages.
      error: what is raised for a file that cannot be read.
    """

    columns: tuple[tuple[str, ...], ...]
    formats: str
    error: type[ValueError]


def is_stream(path: Path) -> bool:
    """Whether a file can be read only once: standard input, or a pipe."""
    return path == STANDARD_INPUT or not path.is_file()


def file_rows(path: Path, form: RowForm) -> Iterator[tuple[int, bytes | dict]]:
    """Yields (number from 1 on, line or parquet row) of all that is not blank.

    Raises:
      form.error: the file cannot be read, or has another format.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            assert isinstance(file, io.BufferedReader), "a buffered file, into which one may peek"
            if not is_stream(path) and (path.suffix.lower() == ".parquet" or file.peek(4).startswith(_PARQUET)):
                yield from _parquet_rows(path, form)
            else:
                yield from _lines(_unpacked(file, path, form))
        except (OSError, EOFError, zlib.error) as error:
            raise form.error(f"{path} cannot be read ({error or type(error).__name__}); is it whole?") from error


def _unpacked(file: io.BufferedReader, path: Path, form: RowForm) -> io.BufferedReader | gzip.GzipFile:
    """The file as bytes of lines.

    Raises:
      form.error: the first bytes are those of another format.
    """
    unpacked = gzip.GzipFile(fileobj=file) if file.peek(8).startswith(_GZIP) else file
    begins = unpacked.peek(8)
    for magic, what in (_OTHERS | _OTHERS_INSIDE).items():
        if begins.startswith(magic):
            raise form.error(f"{path} is {what}; {form.formats}")
    return unpacked


def _lines(file: io.BufferedReader | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """Yields (number, line) of every line that is not blank."""
    for number, line in enumerate(file, start=1):  # bytes: one line that is not UTF-8 is a bad line, not the end
        line = line.removeprefix(codecs.BOM_UTF8)  # of the first, or where files were joined
        if line.strip():
            yield number, line


def _parquet_rows(path: Path, form: RowForm) -> Iterator[tuple[int, dict]]:
    """Yields (number, row) of every row."""
    expected = " or ".join(" and ".join(columns) for columns in form.columns)
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            columns = next((columns for columns in form.columns if names.issuperset(columns)), None)
            if columns is None:
                raise pa.ArrowKeyError(f"it lacks {', '.join(sorted(set(form.columns[0]) - names))}")
            batches = file.iter_batches(batch_size=4096, columns=list(columns))
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), start=1)
    except pa.ArrowException as error:
        raise form.error(f"{path} cannot be read as parquet with columns {expected} ({error})") from error
