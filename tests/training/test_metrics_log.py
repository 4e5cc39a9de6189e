import os
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from atspeed_jax.training import metrics_log
from atspeed_jax.training.directory import TrainingDirectoryError
from atspeed_jax.training.metrics_log import MetricsLog, read_metrics


def tensorboard_scalars(directory):
    """Sorted (tag, step, value) of all event files; a record is length, its checksum, data, its checksum."""
    found = []
    for path in (directory / "tensorboard").iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return sorted(found)


def without_time(records):
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def test_records_reach_both_files(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, "train", {"loss": 0.5})
        assert without_time(read_metrics(tmp_path / "metrics.jsonl")) == [{"step": 1, "split": "train", "loss": 0.5}]
        log.write(1, "valid", {"recall": 0.25, "odd": float("nan")})
    assert without_time(read_metrics(tmp_path / "metrics.jsonl"))[1] == {
        "step": 1,
        "split": "valid",
        "recall": 0.25,
        "odd": None,
    }
    assert tensorboard_scalars(tmp_path) == [("train/loss", 1, 0.5), ("valid/recall", 1, 0.25)]


def test_resuming_drops_later_records_and_a_half_written_line(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, "train", {"loss": float(step)})
    # Event files are named by the second: an older one keeps its own name.
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.rename(events.with_name("events.out.tfevents.1.host"))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    with MetricsLog(tmp_path, 2) as log:
        log.write(3, "train", {"loss": 30.0})
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(record["step"], record["loss"]) for record in records] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert tensorboard_scalars(tmp_path) == [("train/loss", 1, 1.0), ("train/loss", 2, 2.0), ("train/loss", 3, 30.0)]


def test_no_log_is_an_empty_log(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"3",
        b'{"step": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 5000,
        b'{"step": "1", "split": "train"}',
        b'{"step": 1, "split": 2}',
        b'{"step": 1, "split": "train", "loss": "x"}',
    ],
    ids=range(9),
)
def test_a_broken_line_is_named_and_nothing_is_lost(tmp_path, line):
    text = b'{"step": 1, "split": "train"}\n' + line + b'\n{"step": 2, "split": "train"}\n'
    (tmp_path / "metrics.jsonl").write_bytes(text)
    with pytest.raises(TrainingDirectoryError, match=r"metrics\.jsonl line 2: .*remove this line"):
        MetricsLog(tmp_path, 5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == text


def test_a_full_disk_is_told_where_it_happens(tmp_path, monkeypatch):
    """By the very call that writes: a writer in a thread would die, and the next scalars would wait for it forever."""
    monkeypatch.setattr(metrics_log, "FLUSH_S", -1.0)
    log = MetricsLog(tmp_path, 0)
    log.write(1, "train", {"loss": 0.5})
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._events._py_recordio_writer._writer.fileno())
    os.close(full)

    def write_until_it_is_noticed():
        for step in range(2, 40):
            log.write(step, "train", {"loss": 0.5})

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/tensorboard'"):
        write_until_it_is_noticed()
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/tensorboard'"):
        log.close()
    with pytest.raises(OSError, match="No space left on device"):
        log._events._py_recordio_writer.close()  # or Python would complain of an open file
