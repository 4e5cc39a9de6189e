"""Which files a user names, and of which form they are, by their names alone."""

from __future__ import annotations

import glob
from pathlib import Path

from atspeed_jax.ingest.settings import IngestError

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".inter": "csv",
    ".dat": "csv",
    ".data": "csv",
    ".item": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
ENDINGS = ", ".join((*_KINDS, *(f"{ending}.gz" for ending, kind in _KINDS.items() if kind != "parquet")))


def files_of(pattern: str) -> tuple[Path, ...]:
    """The files of a name, of several names with commas between, or of patterns such as
    log/*.csv, each in the order of names.

    Raises:
      IngestError: no such file, or a file that is named twice.
    """
    files: list[Path] = []
    for part in [pattern] if Path(pattern).is_file() else pattern.split(","):
        is_pattern = glob.has_magic(part) and not Path(part).is_file()
        found = sorted(map(Path, glob.glob(part))) if is_pattern else [Path(part)]  # noqa: PTH207
        named = [file for file in found if file.is_file()]
        if not named and Path(part).is_dir():
            raise IngestError(f"{part}: is a directory; name the files in it, as {Path(part) / '*.csv'}.")
        if not named:
            raise IngestError(f"{part}: no such file; give a file or a pattern of files, named {ENDINGS}.")
        files += named
    if twice := [file for number, file in enumerate(files) if file in files[:number]]:
        raise IngestError(f"{pattern}: {twice[0]} is named twice; name each file once.")
    return tuple(files)


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
