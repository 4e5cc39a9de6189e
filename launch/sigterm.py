"""What a main says when SIGTERM ends it.

SLURM, GKE and TPU maintenance send SIGTERM some seconds before they kill a process.
A main whose parts are saved as they are finished needs no time to stop, only a message.
Training catches SIGTERM by itself and saves a checkpoint first (`sigterm_asks`).
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from absl import flags

from atspeed_jax.serving.list_file import Output
from atspeed_jax.training.preemption import RESTART

Kept = Callable[[flags.FlagValues], str | None]  # what is saved by now, such as "the lists are"; None if nothing is


@contextlib.contextmanager
def sigterm_says(kept: Kept | None) -> Iterator[None]:
    """Has SIGTERM end this process with a line on what is kept, and exit code RESTART.

    Where nothing is kept, the line says so and the process ends as SIGTERM ends any
    other. The process ends at once, as by SIGKILL: files are whole at every moment.
    Several processes are left alone; they stop together (`stop_after_sigterm`).

    Args:
      kept: what is saved when the signal comes. None leaves SIGTERM as it is.
    """
    if kept is None or jax.process_count() > 1:
        yield
        return

    def end(*_) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one does not wait for the line
        saved = kept(flags.FLAGS)
        says = f"{saved} kept; run the same command to go on" if saved else "nothing is saved yet"
        with contextlib.suppress(RuntimeError, OSError):  # it may have come in the middle of a print
            sys.stdout.flush()
        os.write(2, f"\nSIGTERM came: {says}\n".encode())  # not print, for the same reason
        if saved:
            os._exit(RESTART)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def nothing_kept(_: flags.FlagValues) -> None:
    """Says that a main saves nothing before its end."""


def stages_kept(values: flags.FlagValues) -> str | None:
    """Says that finished stages of --workdir, or of runs below it, are kept."""
    workdir = Path(values.workdir)
    begun = (workdir / "data").is_dir() or any(workdir.glob("*/data"))
    return f"finished stages and measurements in {workdir} are" if begun else None


def measurements_kept(values: flags.FlagValues) -> str | None:
    """Says how many measurements of the run in --workdir are kept."""
    directory = Path(values.workdir) / "evaluation"
    done = len(list(directory.glob("*/*.json")))
    return f"{done} finished measurements in {directory} are" if done else None


def lists_kept(values: flags.FlagValues) -> str | None:
    """Says of how many users the lists in the unfinished file of --output are."""
    output = Output(Path(values.output))
    try:
        users = json.loads(output.claim.read_text(encoding="utf-8"))["users"]
    except (OSError, ValueError, LookupError, TypeError):  # no claim, or none that says it
        return None
    return f"the lists of {users} users in {output.partial} are" if users else None
