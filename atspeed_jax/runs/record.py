"""experiment.json, the record of a run: the config that its stages were made with.

What a stage was *trained for* stands in the record; where a stage was made with a field (`experiment.made_with`), that
field never changes. How a trained pair is *served* (`experiment.ServeConfig`) is chosen each time it is opened: as
recorded, unless --config.decode, --config.evaluate or --config.mesh say otherwise.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from atspeed_jax.runs.config import ConfigError, load
from atspeed_jax.runs.experiment import SERVED, ExperimentConfig, ServeConfig, made_with
from atspeed_jax.training.checkpoint import is_finished
from atspeed_jax.utils.distributed import is_writer
from atspeed_jax.utils.files import write_json

MARKER_FILE = "experiment.json"
SHOWN, LONG = 3, 60  # differences that an error names, and characters of their values


class WorkdirError(ValueError):
    """A working directory that cannot be used."""


class Difference(NamedTuple):
    """A field of two configs, such as "decode.gamma"; old and new are its values, "absent" where a config lacks it."""

    path: str
    old: object
    new: object

    @property
    def is_served(self) -> bool:
        return self.path.partition(".")[0] in SERVED

    def __str__(self):
        old, new = (text if len(text := str(one)) <= LONG else f"{text[:LONG]}..." for one in (self.old, self.new))
        return f"config.{self.path}: {old} -> {new}"


class Opened(NamedTuple):
    """config: what the run is, or will be, trained for. serve: how it is served, None while it is still being trained.
    chosen: in what it is served otherwise than recorded."""

    config: ExperimentConfig
    serve: ServeConfig | None
    chosen: Sequence[Difference] = ()


def is_run(workdir: Path) -> bool:
    return (Path(workdir) / MARKER_FILE).exists()


def recorded(workdir: Path) -> ExperimentConfig:
    """The config that a run was made with. Raises WorkdirError if there is none, or it cannot be read."""
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
    """A run for a main that trains nothing. Writes nothing.

    given: the record, or what the command line makes of it. Raises WorkdirError if there is no run, and naming the
    fields if it would have to be trained with others.
    """
    record = recorded(workdir)
    differences = _differences(record, given)
    _refuse([one for one in differences if made_with(one.path) and not one.is_served], workdir)
    return Opened(record, ServeConfig.of(given), [one for one in differences if one.is_served])


def open_made(workdir: Path, given: ExperimentConfig) -> Opened:
    """A run for a main that trains: it is begun, gone on with or, once its draft is finished, opened as by
    `open_trained`. Writes nothing: a start that is refused makes no stage, so `record_config` is for later.

    Raises WorkdirError as `check_record`.
    """
    if is_finished(Path(workdir) / "draft"):
        return open_trained(workdir, given)
    check_record(workdir, given)
    return Opened(given, None)


def check_record(workdir: Path, given: ExperimentConfig, begins: str | None = None) -> bool:
    """Whether `given` is to be made the record: until the draft is finished, what no stage was made with may change.

    begins: the stage that is just begun, whose directory is there and holds nothing of another config.
    Raises WorkdirError if the directory is foreign or cannot be made or written, and naming the fields if a stage was
    made with others.
    """
    workdir = Path(workdir).absolute()
    _check_place(workdir)
    if not is_run(workdir):
        _check_empty(workdir)
        return True
    differences = _differences(recorded(workdir), given)
    _refuse([one for one in differences if _begun(workdir, {*made_with(one.path)} - {begins})], workdir)
    return bool(differences) and not is_finished(workdir / "draft")


def record_config(workdir: Path, given: ExperimentConfig, stage: str | None = None) -> None:
    """Makes `given` the record of a run that is new, or not finished; to be called when `stage` is begun, and nothing
    more is to be refused: a start that is refused leaves the record as it was. Of several processes the first does it.
    Raises WorkdirError as `check_record`."""
    if not is_writer() or not check_record(workdir, given, stage):
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        write_json(Path(workdir) / MARKER_FILE, dataclasses.asdict(given))
    except OSError as error:
        raise WorkdirError(f"workdir {workdir} cannot be made or written ({error.strerror}); choose another") from error


def _begun(workdir: Path, stages: Iterable[str]) -> bool:
    return any(os.path.lexists(workdir / stage) for stage in stages)


def check_writable(workdir: Path) -> None:
    """Raises WorkdirError if the directory may not be written to."""
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise WorkdirError(f"workdir {workdir} is not writable; change its permissions or choose another")


def _check_place(workdir: Path) -> None:
    """Raises WorkdirError if there can be no such directory, or it may not be written to."""
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"workdir {workdir} is a file; give --workdir a directory")
    above = next(path for path in (workdir, *workdir.parents) if path.exists())
    if not above.is_dir():
        raise WorkdirError(f"workdir {workdir} cannot be made or written ({above} is a file); choose another")
    check_writable(above)


def _check_empty(workdir: Path) -> None:
    try:
        entries = list(workdir.iterdir()) if workdir.exists() else []
    except OSError as error:
        raise WorkdirError(f"workdir {workdir} cannot be read ({error.strerror}); choose another") from error
    # A run killed while it wrote its record leaves the partial file alone there.
    found = sorted({entry.name for entry in entries} - {f".{MARKER_FILE}.partial"})
    if found:
        raise WorkdirError(
            f"workdir {workdir} is not empty and was not made by this program (no {MARKER_FILE}; it holds "
            f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}); give --workdir a new or empty directory"
        )


def _refuse(differences: Sequence[Difference], workdir: Path) -> None:
    if differences:
        few = ", ".join(map(str, differences[:SHOWN])) + (", ..." if len(differences) > SHOWN else "")
        raise WorkdirError(
            f"{workdir} was trained with another config (recorded -> given): {few}; --workdir={workdir} without them "
            "opens the run by its own record, another --workdir trains anew"
        )


def _differences(old: ExperimentConfig, new: ExperimentConfig) -> list[Difference]:
    return list(_walk(*(json.loads(json.dumps(dataclasses.asdict(one))) for one in (old, new)), ""))


def _walk(old, new, path: str):
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            inner = f"{path}.{name}".lstrip(".")
            yield from _walk(old.get(name, "absent"), new.get(name, "absent"), inner)
    elif old != new:
        yield Difference(path, old, new)
