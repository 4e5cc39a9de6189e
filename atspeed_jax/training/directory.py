"""The directory of one training, and the process that may write into it.

run.json        name and fingerprint, written first; another fingerprint is refused
checkpoints/    training states, while training
metrics.jsonl   the log; tensorboard/ is made from it
params/         the best parameters, when finished
metadata.json   written last: its presence means "finished"

A finished directory may be pruned to params/ and metadata.json.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from atspeed_jax.utils.files import locked, read_json, write_json

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
METADATA_FILE = "metadata.json"
PARAMS_DIR = "params"
CHECKPOINTS_DIR = "checkpoints"  # one directory per step


class TrainingDirectoryError(ValueError):
    """A directory that cannot be used for a training."""


def read_record(path: Path) -> dict:
    """Reads run.json or metadata.json.

    Raises:
      TrainingDirectoryError: the file holds no JSON object.
    """
    remedy = f"restore {path.name}, or move {path.parent} away to train again"
    return read_json(path, remedy, error=TrainingDirectoryError)


def check_directory(directory: Path, fingerprint: str) -> None:
    """Checks that a training of this fingerprint may use the directory. Writes nothing.

    Raises:
      TrainingDirectoryError: the directory is unreadable, holds something else, or
        holds a training of another fingerprint.
    """
    try:
        _check_content(directory, fingerprint)
    except OSError as error:
        raise TrainingDirectoryError(f"{directory} cannot be read ({error}); use another directory") from error


def _check_content(directory: Path, fingerprint: str) -> None:
    if directory.exists() and not directory.is_dir():
        raise TrainingDirectoryError(f"{directory} is not a directory; use another directory")
    for name, what in ((RUN_FILE, "a training"), (METADATA_FILE, "a finished model")):
        if (directory / name).exists():
            _check_fingerprint(directory / name, what, fingerprint)
            return
    partial = {LOCK_FILE, f".{RUN_FILE}.partial"}  # what a kill may leave before the first file
    found = sorted({path.name for path in directory.iterdir()} - partial) if directory.exists() else []
    if PARAMS_DIR in found:
        raise TrainingDirectoryError(
            f"{directory} holds parameters ({PARAMS_DIR}/) without {METADATA_FILE}, which says what they are: restore "
            f"{METADATA_FILE}, or move {directory} away to train again"
        )
    if found:
        raise TrainingDirectoryError(
            f"{directory} is not empty and holds no {RUN_FILE} (found {', '.join(found[:3])}), so it is no training of "
            "this program: use another directory, or move these files away"
        )


def _check_fingerprint(record: Path, what: str, fingerprint: str) -> None:
    stored = read_record(record).get("fingerprint")
    if stored != fingerprint:
        raise TrainingDirectoryError(
            f"{record.parent} holds {what} of fingerprint {stored!r}, expected {fingerprint!r} (configuration or data "
            f"differ): use another directory, or move {record.parent} away to train again"
        )


@contextlib.contextmanager
def claimed_directory(
    directory: Path, name: str, fingerprint: str, on_begin: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Makes the directory and reserves it for this process while the block runs.

    The lock belongs to the process and ends with the process, however that ends.

    Args:
      name: label of the training, for run.json.
      on_begin: called after everything that could be refused has been checked, before
        anything is written.

    Raises:
      TrainingDirectoryError: another process holds the directory, it cannot be made or
        written, or `check_directory` refuses it.
    """
    check_directory(directory, fingerprint)
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            free = stack.enter_context(locked(directory / LOCK_FILE))
        except OSError as error:
            raise TrainingDirectoryError(f"{directory} cannot be written ({error}); use another directory") from error
        if not free:
            raise TrainingDirectoryError(
                f"{directory} is in use by another process; wait for that process, or use another directory"
            )
        check_directory(directory, fingerprint)  # again, now that no other process can write
        on_begin()
        if not (directory / RUN_FILE).exists():
            write_json(directory / RUN_FILE, {"name": name, "fingerprint": fingerprint})
        yield
