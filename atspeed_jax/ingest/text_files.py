"""Text files of a log as Python reads them, and what DuckDB says of them in words.

A message names file, line and content.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import duckdb

from atspeed_jax.ingest.settings import IngestError

LINE = 1 << 25  # characters of a line at most
_SHOWN = 200  # characters of a line in a message
_HEAD = 1000  # lines of a JSON file whose keys become columns
_GZIP = b"\x1f\x8b"
_ENCODINGS = "save it as UTF-8, or give --encoding=latin-1 or --encoding=utf-16."
_NO_OBJECT = "{} is no JSON object; expected one on each line: correct or remove the line."
_CSV_ERROR = re.compile(
    r"CSV Error on Line: (\d+)\s*\nOriginal Line: ?(.*?)\n(?=Expected|Invalid|Value|Error)(.*?)\n", re.S
)
_CSV_FILE = re.compile(r"^\s*file = (.*)$", re.M)
_JSON_ERROR = re.compile(r'JSON in file "(.*)", at byte \d+ in line (\d+)')


def packed(files: Sequence[Path]) -> str:
    """How the files are compressed, whatever their names.

    Raises:
      IngestError: one is gzip and another is not.
    """
    gzipped = {}
    for file in files:
        with file.open("rb") as raw:
            gzipped[raw.read(len(_GZIP)) == _GZIP] = file
    if len(gzipped) > 1:
        raise IngestError(f"{gzipped[True]} is gzip, {gzipped[False]} is not; give files of one kind at a time.")
    return "gzip" if True in gzipped else "none"


def open_text(file: Path, encoding: str = "utf-8", errors: str = "strict") -> IO[str]:
    """Opens a text file, gzip or not, with a byte order mark or without."""
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    if packed([file]) == "gzip":
        return gzip.open(file, "rt", encoding=encoding, errors=errors, newline="")
    return file.open("r", encoding=encoding, errors=errors, newline="")


def first_line(file: Path, encoding: str = "utf-8") -> str:
    """The first line of a text file.

    Raises:
      IngestError: it cannot be read, or is empty.
    """
    try:
        with open_text(file, encoding, errors="replace") as text:  # it decodes more than a line at a time
            line = text.readline(LINE)
    except (OSError, EOFError) as error:
        raise IngestError(f"{file}: cannot be read ({error}).") from error
    if "\ufffd" in line:
        raise IngestError(f"{file}, line 1: {_cut(line)} is no {encoding} text; {_ENCODINGS}")
    if not line.strip():
        raise IngestError(f"{file}: is empty, or begins with an empty line; expected a line with the names of columns.")
    return line.rstrip("\r\n")


def first_objects(file: Path) -> list[dict]:
    """The objects of the first lines.

    Raises:
      IngestError: a line that is no JSON object.
    """
    entries: list[dict] = []
    line, number = "", 0
    try:
        with open_text(file) as text:
            for line in itertools.islice(text, _HEAD):
                number += 1
                value = json.loads(line) if line.strip() else {}
                if not isinstance(value, dict):
                    raise ValueError(f"a {type(value).__name__}")
                entries.append(value)
    except (OSError, EOFError) as error:
        raise IngestError(f"{file}: cannot be read ({error}); fetch or write the file again.") from error
    except (ValueError, RecursionError) as error:
        raise IngestError(f"{file}, line {number}: {_NO_OBJECT.format(_cut(line))} ({error})") from error
    return entries


def keys_of_objects(entries: Iterable[dict]) -> dict[tuple[str, ...], bool]:
    """Finds the keys of JSON objects, and those of the objects in them.

    Returns:
      path of keys -> whether all its values are whole numbers or null.
    """
    whole: dict[tuple[str, ...], bool] = {}

    def add(entry: dict, before: tuple[str, ...]) -> None:
        for key, value in entry.items():
            path = (*before, key)
            whole[path] = whole.get(path, True) and type(value) in (int, type(None))
            if isinstance(value, dict):
                add(value, path)

    for entry in entries:
        add(entry, ())
    return whole


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what DuckDB says of a file into an IngestError with file, line and content."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise IngestError(_in_words(str(error), name)) from error


def _in_words(text: str, name: str) -> str:
    if found := _CSV_ERROR.search(text):
        file = match.group(1).strip() if (match := _CSV_FILE.search(text)) else name
        where, content, why = f"{file}, line {found.group(1)}", found.group(2), found.group(3).strip()
        if "unicode" in why:
            return f"{where}: is no UTF-8 text; {_ENCODINGS}"
        return f"{where}: {_cut(content)} cannot be read ({why.rstrip('.')}); correct or remove the line."
    if found := _JSON_ERROR.search(text):
        return _json_in_words(Path(found.group(1)), int(found.group(2)))
    if "gzip" in text.lower():
        return f"{name}: cannot be read as gzip ({text.splitlines()[0]}); it may be cut short: fetch or write it again."
    lines = [line.strip() for line in text.splitlines()]
    said = [
        line for line in lines if line and not line.startswith(("Possible", "*", "delimiter", "quote", "LINE", "^"))
    ]
    if "state machine reached an invalid state" in text:
        return (
            f"{name}: lines cannot be told apart, which happens where some end in CR LF and others in LF; write all "
            "ends alike, such as by dos2unix."
        )
    if "Maximum line size" in text:
        return f"{name}: a line is longer than {LINE:,} characters; shorten it."
    return f"{name}: cannot be read: {'; '.join(line[:_SHOWN] for line in said[:4])}"


def _json_in_words(file: Path, near: int) -> str:
    """Finds the malformed line; DuckDB may name the line behind it."""
    first = max(1, near - 2)
    with open_text(file, errors="replace") as lines:
        for number, line in enumerate(itertools.islice(lines, first - 1, near + 1), first):
            try:
                if not line.strip() or isinstance(json.loads(line), dict):
                    continue
            except ValueError:
                pass
            return f"{file}, line {number}: {_NO_OBJECT.format(_cut(line))}"
    return f"{file}, near line {near}: {_NO_OBJECT.format('a line')}"


def _cut(line: str) -> str:
    return repr(line.strip()[:_SHOWN])
