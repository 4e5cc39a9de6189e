"""Files written whole or not at all, or line by line; where several processes run, by the first alone. Locks."""

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
    """Writes a file so that a reader, even after a kill, finds the old content or the new, never a part."""
    if not is_writer():
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(partial), partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk it would take the place that is left
        raise
    partial.replace(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of what is done in it names the file, as one of writing does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def full_disk(error: BaseException) -> str | None:
    """What is said of a full disk, or an exhausted quota, in an error or those it came from; None if nothing is.

    Libraries have their own errors for it: tensorstore a ValueError, TFDS a RuntimeError, safetensors its own.
    """
    words = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
    for cause in reversed(list(chain_of(error))):
        if any(word in str(cause) for word in words):
            return " ".join(str(cause).split())
    return None


def append_text(path: Path, text: str) -> None:
    """Adds `text` in UTF-8 at the end of a file; it is on the disk when this returns."""
    if not is_writer():
        return
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """write_bytes in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value) -> None:
    """Indented JSON through write_text. Raises ValueError for NaN and infinity, which JSON cannot hold."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_writable(flag: str, path: Path) -> None:
    """Raises ValueError naming the flag that gave `path`, before any long work, if no file can be written there."""
    if path.is_dir():
        raise ValueError(f"{flag}={path}: this is a directory; give the name of a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{flag}={path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{flag}={path}: the directory {path.parent} is not writable; give another")


def read_json(
    path: Path, remedy: str, fields: Mapping[str, type] | None = None, *, error: type[Exception] = ValueError
) -> dict:
    """The JSON object in a file of ours.

    fields: what the object must have, by name, and the type of each; it may have more. Raises `error`, which names the
    file and the remedy, for any other content.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as cause:  # RecursionError: of lists in lists in lists
        raise error(f"{path} is damaged ({cause}); {remedy}") from cause
    if damage := _no_object_with(fields or {}, value):
        raise error(f"{path} is damaged ({damage}); {remedy}")
    return value


def _no_object_with(fields: Mapping[str, type], value) -> str | None:
    """What is wrong with the content of a JSON file, None if nothing is."""
    if not isinstance(value, dict):
        return f"it holds a {type(value).__name__}, expected a JSON object"
    for name, kind in fields.items():
        if name not in value:
            return f"it lacks {name}"
        if not isinstance(value[name], kind):
            return f"{name} is a {type(value[name]).__name__}, expected a {kind.__name__}"
    return None


def remembered(path: Path, measure: Callable[[], dict], say: Callable[[str], None], fields: Mapping[str, type]) -> dict:
    """The content of the JSON file `path`, measured and written first if there is none; `say` is told so.

    fields: see `read_json`. Raises ValueError for a damaged file.
    """
    if agreed(path.exists):
        return read_json(path, "delete it, and it is measured again", fields)
    say(f"measuring {path.stem}")
    value = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
    return value


def sizes_of(directory: Path) -> dict[str, int]:
    """Bytes of every file below `directory`, by its path there."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def first_damaged(directory: Path, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with the first file below `directory` that is not as `sizes_of` found it, None if all are."""
    for name, size in sizes.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes, not the {size} it was written with"
    return None


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def jsonable(value) -> Any:
    """`value` with non-finite floats as None, which JSON cannot hold; dicts and lists are searched."""
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether the lock of the file `path` is this process's own while the block runs; False: it is another's.

    The file is made, and removed at the end. The lock belongs to the process, so it vanishes with it however it ends,
    even where the file stays. Raises OSError if the file cannot be made.
    """
    lock = _locked_file(path)
    if lock is None:
        yield False
        return
    with lock:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)  # before the lock is given up: whoever comes now makes another file


def _locked_file(path: Path) -> IO | None:
    while True:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        except OSError as error:  # a file system that knows no locks, as some that hosts share
            print(f"note: {path} cannot be locked ({error}): start no second run there", file=sys.stderr)
            return lock
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()  # its owner removed it between the two: this lock is one of no name
