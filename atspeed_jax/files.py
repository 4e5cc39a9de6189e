"""Files written whole or not at all, or line by line; where several processes run, by the first alone."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from atspeed_jax.processes import agreed, is_writer


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, even after a kill, finds the old content or the new, never a part."""
    if not is_writer():
        return
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def append_text(path: Path, text: str) -> None:
    """Adds `text` in UTF-8 at the end of a file; it is on the disk when this returns."""
    if not is_writer():
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """write_bytes in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value) -> None:
    """Indented JSON through write_text. Raises ValueError for NaN and infinity, which JSON cannot hold."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def remembered(path: Path, measure: Callable[[], dict], say: Callable[[str], None]) -> dict:
    """The content of the JSON file `path`, measured and written first if there is none; `say` is told so."""
    if agreed(path.exists):
        return json.loads(path.read_text(encoding="utf-8"))
    say(f"measuring {path.stem}")
    value = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
    return value


def jsonable(value):
    """`value` with non-finite floats as None, which JSON cannot hold; dicts and lists are searched."""
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
