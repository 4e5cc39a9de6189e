"""Compiled programs are kept, so that a main compiles the same shapes only once.

This is JAX's persistent compilation cache, in ~/.cache/atspeed_jax/xla.
JAX_COMPILATION_CACHE_DIR=DIR moves it, JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
"""

import contextlib
import hashlib
import os
import platform
import re
import sys
import warnings
from pathlib import Path

import jax

from atspeed_jax.utils.distributed import is_writer

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
FAULT = re.compile(r"Error (reading|writing) persistent compilation cache entry.*?: (.*)", re.DOTALL)
OUTCOMES = {
    "reading": ("read from", "it is compiled anew; delete that directory if this note comes again"),
    "writing": ("kept in", f"the next run compiles it again; {VARIABLE}=DIR names another place"),
}
MOST_BYTES = 4 * 2**30  # of the default directory


def keep_programs() -> None:
    """Has JAX keep the programs that it compiles, and load programs that it has kept.

    If the directory cannot be made or written, a note says so and nothing is kept.
    Several processes keep programs only in the directory of the variable, which all of
    them must see: XLA compiles for several GPUs in all processes together, and would
    wait for a process that loads.
    """
    given = os.environ.get(VARIABLE)
    enabled = jax.config.values["jax_enable_compilation_cache"]
    if not enabled or (not given and jax.process_count() > 1):
        return
    try:
        place = given or str(default_directory())
        if "://" not in place:  # JAX writes to buckets too
            _make_writable(Path(place))
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        _note(f"no compiled program is kept for the next run: {error}")
        return
    if not given:
        forget_oldest(Path(place), MOST_BYTES)
    _tell_faults_once(place)
    jax.config.update("jax_compilation_cache_dir", place)
    # Every program is kept, since a main compiles few: recommend 17 and evaluate 20
    # more with configs/tiny.py, together 6.5 MB. By default JAX leaves out programs
    # that take less than a second.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_directory() -> Path:
    """Returns the directory of programs for this kind of processor.

    Machines share homes, and a processor may lack instructions that a program of
    another one uses.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = base if base.is_absolute() else Path.home() / ".cache"
    return base / "atspeed_jax" / "xla" / _processor()


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        kind = "".join(sorted(set(re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", info, re.MULTILINE))))
    except OSError:  # not on Linux
        kind = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {kind}".encode()).hexdigest()[:12]


def _make_writable(place: Path) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever writes into it chooses what this program runs
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{place} cannot be written")


def forget_oldest(place: Path, most: int) -> None:
    """Deletes the oldest programs of a directory that has grown too large.

    Args:
      place: the directory.
      most: bytes that it may hold. If it holds more, half of that is left.
    """
    found = []
    for file in place.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    held = sum(size for _, size, _ in found)
    if held <= most:
        return
    for _, size, file in sorted(found):
        if held <= most // 2:
            break
        file.unlink(missing_ok=True)
        held -= size


def _tell_faults_once(place: str) -> None:
    """Replaces JAX's warnings about programs that are not loaded or kept by one note."""
    before, noted = warnings.showwarning, set()

    def show(message, category, *where, **more):
        fault = re.match(
            r"Error (reading|writing) persistent compilation cache entry.*?: (.*)", str(message), re.DOTALL
        )
        if fault is None:
            before(message, category, *where, **more)
            return
        if fault[1] not in noted:
            noted.add(fault[1])
            what, then = OUTCOMES[fault[1]]
            _note(f"a compiled program cannot be {what} {place} ({' '.join(fault[2].split())[:200]}); {then}")

    warnings.showwarning = show


def _note(text: str) -> None:
    if is_writer():
        print(f"note: {text}", file=sys.stderr)
