"""The directory of one training run, and who owns it.

run.json        name and fingerprint, written first; a run with another fingerprint is refused
checkpoints/    training state, while training
metrics.jsonl   the log; tensorboard/ is made from it
params/         best parameters, when finished
metadata.json   written last: its presence means "finished"
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from atspeed_jax.utils import files
from atspeed_jax.utils.files import locked, write_json

RUN_FILE = "run.json"
LOCK_FILE = ".lock"


class WorkdirError(ValueError):
    """A working directory that cannot be used for this run."""


def read_json(path: Path) -> dict:
    """Read a JSON object; WorkdirError if the file holds anything else."""
    return files.read_json(path, "delete the directory or use another one", error=WorkdirError)


def check_workdir(workdir: Path, fingerprint: str) -> None:
    """Raise WorkdirError unless `workdir` is absent, empty, or of a run with this fingerprint. Writes nothing."""
    try:
        _check_owner(workdir, fingerprint)
    except OSError as error:
        raise WorkdirError(f"workdir {workdir} cannot be read ({error}); use another workdir") from error


def _check_owner(workdir: Path, fingerprint: str) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"workdir {workdir} is not a directory; use another workdir")
    run_file = workdir / RUN_FILE
    if run_file.exists():
        stored = read_json(run_file).get("fingerprint")
        if stored != fingerprint:
            raise WorkdirError(
                f"workdir {workdir} belongs to a run with fingerprint {stored!r}, this run has {fingerprint!r} "
                "(its configuration or data differ); use another workdir, or delete this one to start afresh"
            )
        return
    ours = {LOCK_FILE, f".{RUN_FILE}.partial"}
    foreign = sorted(set(os.listdir(workdir)) - ours) if workdir.exists() else []
    if foreign:
        raise WorkdirError(
            f"workdir {workdir} is not empty and holds no {RUN_FILE} (found {', '.join(foreign[:3])}); "
            "it was not made by this program: use another workdir, or delete it"
        )


@contextlib.contextmanager
def claimed_workdir(
    workdir: Path, name: str, fingerprint: str, begins: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Make the directory this run's own while the block runs; another process that tries gets WorkdirError.

    begins: called when nothing more is to be refused, before anything is written.
    The lock belongs to the process, so it vanishes with it however it ends. Raises WorkdirError if the directory
    cannot be made or written, is foreign, or has another fingerprint.
    """
    check_workdir(workdir, fingerprint)
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            own = stack.enter_context(locked(workdir / LOCK_FILE))
        except OSError as error:
            raise WorkdirError(f"workdir {workdir} cannot be written ({error}); use another workdir") from error
        if not own:
            raise WorkdirError(f"workdir {workdir} is in use by another process; wait for it, or use another workdir")
        check_workdir(workdir, fingerprint)  # again, now that nobody else can be writing here
        begins()
        if not (workdir / RUN_FILE).exists():
            write_json(workdir / RUN_FILE, {"name": name, "fingerprint": fingerprint})
        yield
