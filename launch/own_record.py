"""What launch.own was told, which it keeps beside the data that it has made."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from atspeed_jax.utils.files import locked, read_json, write_json
from launch.command_line import CommandLineError

FILE = "own.json"
_REMEDY = "remove it, and launch.own of the checkout no longer knows what it was told"


def told(data: Path) -> dict:
    """What launch.own was told when it made a part of what is there: name -> value."""
    file = data / FILE
    return read_json(file, _REMEDY, error=CommandLineError) if file.exists() else {}


def remember(data: Path, **what) -> None:
    """Adds to what `told` returns."""
    write_json(data / FILE, told(data) | what)


def check_flags(data: Path, main: str, given: Sequence[str]) -> None:
    """Checks the flags of a command that is not run again.

    Without flags those that it was run with stand.

    Raises:
      CommandLineError: other flags than those.
    """
    known = told(data).get(main)
    if given and sorted(given) != sorted(known or ()):
        made = "without it" if not known else f"with {' '.join(known)}"
        made = "by another command than this one" if known is None else made
        raise CommandLineError(
            f"--{main}={' '.join(given)}: {data} was made {made}. Leave the flag out to go on, or name another "
            "--workdir to begin anew"
        )


def check_k(data: Path, lists: Path, k: int) -> None:
    """Checks the length of lists that are there.

    Raises:
      CommandLineError: they have another one.
    """
    known = told(data).get("k", k)
    if known != k:
        raise CommandLineError(
            f"--k={k}: {lists} holds lists of {known} items. Leave --k out, or move that file away and run the same "
            "command again"
        )


@contextlib.contextmanager
def only_one(workdir: Path) -> Iterator[None]:
    """Holds a run and its data while the block runs.

    Raises:
      CommandLineError: another launch.own works on them, or the place is not writable.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.parent.mkdir(parents=True, exist_ok=True)
            is_first = stack.enter_context(locked(workdir.with_name(f".{workdir.name}.own.lock")))
        except OSError as error:
            raise CommandLineError(f"{workdir} cannot be made ({error}); give another --workdir") from error
        if not is_first:
            raise CommandLineError(f"another launch.own works on {workdir}; wait for it, or give another --workdir")
        yield
