"""experiment.json, the record of a run: the config that its stages were made with.

A field that a stage was made with (`experiment.made_with`) never changes in the record.
How a trained pair is served (`experiment.ServeConfig`) is chosen each time the run is
opened: as recorded, unless decode, evaluate or mesh are given otherwise.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from atspeed_jax.runs.config import ConfigError, load
from atspeed_jax.runs.experiment import SERVED, ExperimentConfig, PretrainedConfig, ServeConfig, made_with
from atspeed_jax.training.checkpoint import is_finished
from atspeed_jax.utils.distributed import is_writer
from atspeed_jax.utils.files import write_json

MARKER_FILE = "experiment.json"
SHOWN, LONG = 3, 60  # most differences that an error names, and most characters of a value


class WorkdirError(ValueError):
    """A working directory that cannot be used."""


class Difference(NamedTuple):
    """A field in which two configs differ.

    Attributes:
      path: the field, such as "decode.gamma".
      old, new: its values; "absent" where a config lacks the field.
    """

    path: str
    old: object
    new: object

    @property
    def is_served(self) -> bool:
        """Whether the field says how a trained pair is served."""
        return self.path.partition(".")[0] in SERVED

    def __str__(self):
        old, new = (text if len(text := str(one)) <= LONG else f"{text[:LONG]}..." for one in (self.old, self.new))
        return f"config.{self.path}: {old} -> {new}"


class Opened(NamedTuple):
    """How a run is opened.

    Attributes:
      config: what the run is, or will be, trained for.
      serve: how the trained pair is served; None while the pair is still being trained.
      chosen: the fields in which it is served otherwise than recorded.
    """

    config: ExperimentConfig
    serve: ServeConfig | None
    chosen: Sequence[Difference] = ()


def is_run(workdir: Path) -> bool:
    """Whether a directory holds the record of a run."""
    return (Path(workdir) / MARKER_FILE).exists()


def recorded(workdir: Path) -> ExperimentConfig:
    """Reads the config that a run was made with.

    Raises:
      WorkdirError: the directory has no record, or the record cannot be read.
    """
    marker = Path(workdir) / MARKER_FILE
    try:
        fields = json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WorkdirError(f"there is no run in {workdir} (no {MARKER_FILE}); give the directory of a run") from error
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{marker} cannot be read ({error}); restore it, or give another directory") from error
    if not isinstance(fields, dict):
        raise WorkdirError(f"{marker} holds no config; restore it, or give another directory")
    try:
        return load(fields, ExperimentConfig)
    except ConfigError as error:
        raise WorkdirError(f"{marker} is not of this version of the program: {error}") from error


def open_trained(workdir: Path, given: ExperimentConfig) -> Opened:
    """Opens a run to serve it, not to train it. Writes nothing.

    Args:
      given: the recorded config, with the changes that the user asks for.

    Raises:
      WorkdirError: the directory holds no run, or a change concerns what was trained;
        the message names the fields.
    """
    record = recorded(workdir)
    differences = _differences(record, given)
    _refuse([one for one in differences if made_with(one.path) and not one.is_served], workdir)
    return Opened(record, ServeConfig.of(given), [one for one in differences if one.is_served])


def open_made(workdir: Path, given: ExperimentConfig) -> Opened:
    """Opens a run to train it. Writes nothing (`record_config` does).

    The run may be new or unfinished. Once its draft is finished, it is opened as by
    `open_trained`.

    Raises:
      WorkdirError: see `check_record`.
    """
    if is_finished(Path(workdir) / "draft"):
        return open_trained(workdir, given)
    check_record(workdir, given)
    return Opened(given, None)


def check_record(workdir: Path, given: ExperimentConfig, new_stage: str | None = None) -> bool:
    """Checks that a run may be trained with a config.

    Until the draft is finished, fields that no stage was made with may change.

    Args:
      new_stage: the stage that is about to begin. Its directory may exist already, and
        holds nothing that was made with another config.

    Returns:
      whether `given` has to be written as the record.

    Raises:
      WorkdirError: the directory holds something else, cannot be made or cannot be
        written; or a stage was made with other values, which the message names.
    """
    workdir = Path(workdir).absolute()
    _check_place(workdir)
    if not is_run(workdir):
        _check_empty(workdir)
        return True
    differences = _differences(recorded(workdir), given)
    _refuse([one for one in differences if _any_begun(workdir, {*made_with(one.path)} - {new_stage})], workdir)
    return bool(differences) and not is_finished(workdir / "draft")


def record_config(workdir: Path, given: ExperimentConfig, stage: str | None = None) -> None:
    """Writes a config as the record of a run that is new or unfinished.

    To be called when `stage` begins, after everything that could be refused has been
    checked: a start that is refused leaves the record as it was. The first of several
    processes writes.

    Raises:
      WorkdirError: see `check_record`.
    """
    if not is_writer() or not check_record(workdir, given, stage):
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        write_json(Path(workdir) / MARKER_FILE, dataclasses.asdict(_with_absolute_bases(given)))
    except OSError as error:
        raise WorkdirError(f"workdir {workdir} cannot be made or written ({error.strerror}); choose another") from error


def _with_absolute_bases(config: ExperimentConfig) -> ExperimentConfig:
    """The config with absolute paths of Hugging Face directories.

    A run whose record holds a relative path could be opened from one directory alone.
    """
    models = {"target": config.target, "draft": config.draft}
    bases = {
        name: dataclasses.replace(model, directory=str(Path(model.directory).absolute()))
        for name, model in models.items()
        if isinstance(model, PretrainedConfig)
    }
    return dataclasses.replace(config, **bases)


def _any_begun(workdir: Path, stages: Iterable[str]) -> bool:
    return any(os.path.lexists(workdir / stage) for stage in stages)


def check_writable(workdir: Path) -> None:
    """Raises WorkdirError if this process may not write into the directory."""
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise WorkdirError(f"workdir {workdir} is not writable; change its permissions or choose another")


def _check_place(workdir: Path) -> None:
    """Raises WorkdirError if the directory cannot be made or written."""
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"workdir {workdir} is a file; give --workdir a directory")
    nearest = next(path for path in (workdir, *workdir.parents) if path.exists())
    if not nearest.is_dir():
        raise WorkdirError(f"workdir {workdir} cannot be made or written ({nearest} is a file); choose another")
    check_writable(nearest)


def _check_empty(workdir: Path) -> None:
    """Raises WorkdirError if the directory holds anything."""
    try:
        entries = list(workdir.iterdir()) if workdir.exists() else []
    except OSError as error:
        raise WorkdirError(f"workdir {workdir} cannot be read ({error.strerror}); choose another") from error
    # A process that is killed while it writes the record leaves the partial file alone.
    found = sorted({entry.name for entry in entries} - {f".{MARKER_FILE}.partial"})
    if found:
        raise WorkdirError(
            f"workdir {workdir} is not empty and was not made by this program (no {MARKER_FILE}; it holds "
            f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}); give --workdir a new or empty directory"
        )


def _refuse(differences: Sequence[Difference], workdir: Path) -> None:
    """Raises WorkdirError naming the differences, if any."""
    if differences:
        few = ", ".join(map(str, differences[:SHOWN])) + (", ..." if len(differences) > SHOWN else "")
        raise WorkdirError(
            f"{workdir} was trained with another config (recorded -> given): {few}; --workdir={workdir} without these "
            "fields opens the run as recorded, another --workdir trains a new run"
        )


def _differences(old: ExperimentConfig, new: ExperimentConfig) -> list[Difference]:
    both = (_with_absolute_bases(one) for one in (old, new))
    as_read, given = (json.loads(json.dumps(dataclasses.asdict(one))) for one in both)
    return list(_walk(as_read, given, ""))


def _walk(old, new, path: str):
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            inner = f"{path}.{name}".lstrip(".")
            yield from _walk(old.get(name, "absent"), new.get(name, "absent"), inner)
    elif old != new:
        yield Difference(path, old, new)
