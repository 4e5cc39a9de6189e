"""Metrics of a training, each once over all restarts, as JSON lines and TensorBoard."""

import contextlib
import json
import shutil
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (made at import)
from tensorboardX.summary import scalar

from atspeed_jax.training.directory import TrainingDirectoryError
from atspeed_jax.utils.files import jsonable, naming, write_text
from atspeed_jax.utils.ranges import shown

FLUSH_S = 60  # seconds between two flushes of the TensorBoard file


def read_metrics(path) -> list[dict]:
    """Reads the records of a metrics.jsonl file, in order.

    A last line that a kill has cut short is left out.

    Raises:
      TrainingDirectoryError: another line is no record; the message names the line.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = []
    # The text after the last line break is empty, or a line that was cut short.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            text = shown(line.decode("utf-8", "replace"), 60)
            raise TrainingDirectoryError(f"{path} line {number}: not JSON ({text}); remove this line") from error
        if not _is_record(record):
            raise TrainingDirectoryError(
                f"{path} line {number}: expected an object with step, split and numbers; remove this line"
            )
        records.append(record)
    return records


def _is_record(value) -> bool:
    """Whether the content of a line is what `MetricsLog.write` writes."""
    if not isinstance(value, dict) or type(value.get("step")) is not int or not isinstance(value.get("split"), str):
        return False
    return all(isinstance(number, int | float | None) for name, number in value.items() if name != "split")


class MetricsLog:
    """Appends records to DIR/metrics.jsonl and DIR/tensorboard.

    A record is {"step", "split", "time", metrics...}.

    The TensorBoard files are made from the JSON lines, again whenever a log is opened.
    """

    def __init__(self, directory, step: int):
        """Opens the log of a training that (re)starts after `step` updates.

        Records of later steps are dropped: the training writes them again.

        Raises:
          TrainingDirectoryError: see `read_metrics`.
        """
        directory = Path(directory)
        directory.mkdir(exist_ok=True)
        path = directory / "metrics.jsonl"
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._path, self._events_in = path, directory / "tensorboard"
        shutil.rmtree(self._events_in, ignore_errors=True)
        with naming(self._events_in):
            self._events_in.mkdir()
            # SummaryWriter's thread dies of a full disk, and then every scalar waits.
            self._events, self._flushed = EventsWriter(str(self._events_in / "events")), time.monotonic()
        for record in kept:
            self._add_scalars(record)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Appends one record. On return the record is in the file, safe from a kill.

        Args:
          step: updates done.
          split: "train", "valid" or "speed".
          metrics: values by name. Values that are not finite become null.
        """
        record = jsonable({"step": step, "split": split, "time": round(time.time(), 3), **metrics})
        with naming(self._path):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        self._add_scalars(record)

    def _add_scalars(self, record: dict) -> None:
        values = [
            scalar(f"{record['split']}/{name}", value)
            for name, value in record.items()
            if name not in ("step", "split", "time") and value is not None
        ]
        with naming(self._events_in):
            for value in values:
                self._events.write_event(Event(step=record["step"], wall_time=record.get("time"), summary=value))
            if time.monotonic() - self._flushed > FLUSH_S:  # a flush waits for the disk
                self._flushed = time.monotonic()
                self._events.flush()

    def close(self) -> None:
        with naming(self._path):
            self._file.close()
        with naming(self._events_in):
            self._events.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class NoLog(contextlib.nullcontext):
    """A log that writes nothing, for processes beside the one that writes."""

    def __init__(self, directory, step: int):
        super().__init__(self)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes nothing."""
