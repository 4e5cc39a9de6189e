"""Writes files whole or not at all, or line by line; locks files.

Where several processes run, only the first one writes.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from atspeed_jax.utils.distributed import agreed, is_writer


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically.

    A reader finds the old content or the new content, even after a kill.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files that belong together, each atomically, in their order.

    No file gets its name before all are on the disk: a full disk leaves the old ones.

    Args:
      contents: file -> content.
    """
    if not is_writer():
        return
    partials = {path: path.with_name(f".{path.name}.partial") for path in contents}
    try:
        for path, partial in partials.items():
            with naming(partial), partial.open("wb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        for partial in partials.values():
            partial.unlink(missing_ok=True)  # on a full disk it would use up the space that is left
        raise
    for path, partial in partials.items():
        partial.replace(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file's name to an OSError of the block; an error of writing has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def full_disk(error: BaseException) -> str | None:
    """Finds the message about a full disk or quota in an error or its causes.

    Libraries raise different errors for it: tensorstore a ValueError, TFDS a
    RuntimeError, safetensors its SafetensorError.

    Returns:
      The message on one line; None if no error mentions a full disk.
    """
    words = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
    for cause in reversed(list(chain_of(error))):
        if any(word in str(cause) for word in words):
            return " ".join(str(cause).split())
    return None


def append_text(path: Path, text: str) -> None:
    """Appends `text` in UTF-8 to a file and waits until it is on the disk."""
    if not is_writer():
        return
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8 atomically (`write_bytes`)."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value) -> None:
    """Writes indented JSON atomically (`write_bytes`).

    Raises:
      ValueError: the value holds NaN or infinity, which JSON cannot.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_writable(flag: str, path: Path) -> None:
    """Checks that a file can be written, before any long work.

    Args:
      flag: that gave the path, for the message.
      path: of the file.

    Raises:
      ValueError: the path is a directory, or its directory is missing or not writable.
    """
    if path.is_dir():
        raise ValueError(f"{flag}={path}: this is a directory; give the name of a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{flag}={path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{flag}={path}: the directory {path.parent} is not writable; give another")


def read_json(
    path: Path, remedy: str, fields: Mapping[str, type] | None = None, *, error: type[Exception] = ValueError
) -> dict:
    """Reads a JSON object that this package wrote.

    Args:
      path: of the file.
      remedy: what the user does about a damaged file, for the message.
      fields: name and type of every field that the object must have; it may have more.
      error: class of the error.

    Raises:
      error: the content is no such object; the message names the file and the remedy.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as cause:  # RecursionError: lists nested too deep
        raise error(f"{path} is damaged ({cause}); {remedy}") from cause
    if damage := _no_object_with(fields or {}, value):
        raise error(f"{path} is damaged ({damage}); {remedy}")
    return value


def _no_object_with(fields: Mapping[str, type], value) -> str | None:
    """Describes what is wrong with the content of a JSON file; None if nothing is."""
    if not isinstance(value, dict):
        return f"it holds a {type(value).__name__}, expected a JSON object"
    for name, kind in fields.items():
        if name not in value:
            return f"it lacks {name}"
        if not isinstance(value[name], kind):
            return f"{name} is a {type(value[name]).__name__}, expected a {kind.__name__}"
    return None


def remembered(path: Path, measure: Callable[[], dict], say: Callable[[str], None], fields: Mapping[str, type]) -> dict:
    """Reads a JSON file; measures and writes its content first if the file is missing.

    Args:
      path: of the file.
      measure: returns the content.
      say: prints a message before the measurement.
      fields: see `read_json`.

    Raises:
      ValueError: the file is damaged.
    """
    if agreed(path.exists):
        return read_json(path, "delete it, and it is measured again", fields)
    say(f"measuring {path.stem}")
    value = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
    return value


def sizes_of(directory: Path) -> dict[str, int]:
    """Lists the bytes of every file below `directory`, by its path relative to it."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def first_damaged(directory: Path, sizes: Mapping[str, int]) -> str | None:
    """Describes the first file that differs from what `sizes_of` listed.

    Returns:
      A sentence for a message; None if no file differs.
    """
    for name, size in sizes.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes, not the {size} it was written with"
    return None


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def jsonable(value) -> Any:
    """Replaces non-finite floats in dicts and lists by None: JSON cannot hold them."""
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Locks the file `path` while the block runs.

    The file is made, and removed at the end. The operating system releases the lock
    when the process ends, however it ends, even if the file stays.

    Yields:
      True if this process has the lock, False if another process has it.

    Raises:
      OSError: the file cannot be made.
    """
    lock = _locked_file(path)
    if lock is None:
        yield False
        return
    with lock:
        try:
            yield True
        finally:
            # Removed before the lock is released: a process that comes now makes a new
            # file.
            path.unlink(missing_ok=True)


def _locked_file(path: Path) -> IO | None:
    """Opens and locks a file; None if another process has the lock."""
    while True:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        except OSError as error:  # a file system without locks, as some shared ones are
            print(f"note: {path} cannot be locked ({error}): start no second run there", file=sys.stderr)
            return lock
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        # The other process removed the file between opening and locking, so this lock
        # guards a file without a name. Try again.
        lock.close()
