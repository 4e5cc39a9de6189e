"""A directory that is exported to: new, and whole or absent."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from atspeed_jax.utils import files


class ExportError(ValueError):
    """A directory that cannot be exported to, or something that cannot be exported."""


def check_new(directory: Path) -> None:
    """Raises ExportError for a directory that is not empty, or a file of that name."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} exists and is not empty; give a new directory, or delete it")


@contextlib.contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Yields a directory to write into; it gets its final name when all is written."""
    directory = directory.absolute()
    check_new(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(directory.with_name(f".{directory.name}.lock")) as locked:
            if not locked:
                raise ExportError(
                    f"{directory} is being written by another process; wait for it, or give another directory"
                )
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                yield partial
                partial.replace(directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)  # what a full disk has of it would keep the disk full
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{directory} cannot be written ({error}); give another directory") from error
