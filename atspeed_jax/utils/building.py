"""Directories that are complete or absent: built under another name, and renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def built(directory: Path) -> Iterator[Path]:
    """Gives a fresh directory beside `directory`, which gets its name at the end.

    If the block fails nothing is left. What builds that were killed on this machine
    have left is removed.

    Args:
      directory: must not exist yet, or be empty.

    Raises:
      FileExistsError: `directory` holds something, at the beginning or at the end.
      OSError: it cannot be written.
    """
    directory = directory.absolute()
    check_free(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(f"{directory.parent} is below a file, or is one") from error
    building = _sibling(directory)
    try:
        yield building
        check_free(directory)  # again: another build may have ended first
        building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_free(directory: Path) -> None:
    """Raises FileExistsError for a directory that is not empty, or a file of that name."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} exists and is kept: give another directory, or remove it.")


def _sibling(directory: Path) -> Path:
    """Makes a fresh directory beside `directory`."""
    prefix = f".{directory.name}.building-{socket.gethostname()}-"
    for leftover in directory.parent.glob(f"{prefix}*"):
        process = leftover.name.removeprefix(prefix)
        if process.isdigit() and (int(process) == os.getpid() or not _alive(int(process))):
            shutil.rmtree(leftover, ignore_errors=True)
    building = directory.parent / f"{prefix}{os.getpid()}"
    building.mkdir()
    return building


def _alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
