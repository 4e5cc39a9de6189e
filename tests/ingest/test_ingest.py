import dataclasses
import json
import re

import pyarrow.parquet as pq
import pytest

from atspeed_jax.ingest.ingest import ingest
from atspeed_jax.ingest.settings import Files, IngestError

LOG = "user,item,time\n" + "".join(f"{user},{item},{1 + user + 3 * item}\n" for user in range(3) for item in range(4))


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "in" / "log.csv"
    file.parent.mkdir()
    file.write_text(LOG)
    return file


def quiet(line):
    pass


def test_the_directory_holds_what_its_record_says(log, tmp_path, config):
    said = []
    output = tmp_path / "deep" / "shop"
    record = ingest(str(log), None, output, config(split={"valid_share": 0.25, "test_share": 0.25}), said.append)
    assert json.loads((output / "ingest.json").read_text()) == record
    assert {name: record[name] for name in ("format", "name", "split", "rows", "users", "items", "interactions")} == {
        "format": 1,
        "name": "shop",
        "split": "time",
        "rows": False,
        "users": 3,
        "items": 4,
        "interactions": 12,
    }
    assert record["splits"] == {"train": 6, "valid": 3, "test": 3}
    assert record["sources"] == [{"file": str(log), "bytes": len(LOG)}]
    assert sorted(file.name for file in output.iterdir()) == [
        "histories.parquet",
        "ingest.json",
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]
    assert pq.read_table(output / "histories.parquet").to_pylist()[0] == {"user": 0, "items": [0, 1, 2, 3]}
    assert "split: train 6, valid 3, test 3" in said
    assert [file.name for file in output.parent.iterdir()] == ["shop"]


def test_rolling_and_users_with_one_event(log, tmp_path, config):
    with log.open("a") as file:
        file.write("9,0,1\n")
    record = ingest(str(log), None, tmp_path / "shop", config(split={"how": "rolling"}), quiet)
    assert record["rows"]
    assert record["warnings"] == ["1 users have one event; --user_core=2 leaves them out"]


@pytest.mark.parametrize(
    ("rows", "filters", "message"),
    [
        ("9,0,1\n8,1,2\n7,0,3\n", {}, "each of the 3 users has one event, so that no event has a history"),
        ("9,0,1\n8,1,2\n7,0,3\n7,1,4\n", {}, "2 users have one event, and one user has more"),
        ("9,0,1\n8,1,2\n8,0,3\n7,0,4\n7,1,5\n", {"item_core": 2}, "1 users .*leaves them out, and then items of"),
    ],
)
def test_a_filter_is_advised_only_where_events_are_left(log, tmp_path, config, rows, filters, message):
    log.write_text("user,item,time\n" + rows)
    settings = config(split={"valid_share": 0.3, "test_share": 0.3}, **filters)
    warnings = ingest(str(log), None, tmp_path / "shop", settings, quiet)["warnings"]
    assert len(warnings) == 1
    assert re.match(message, warnings[0])
    assert ("--user_core" in warnings[0]) == bool(filters)


@pytest.mark.parametrize(("line", "what"), [("1,{n},{n}\n", "user"), ("{n},1,{n}\n", "item")])
def test_one_user_or_one_item_is_refused(log, tmp_path, config, line, what):
    log.write_text("user,item,time\n" + "".join(line.format(n=n) for n in range(1, 30)))
    with pytest.raises(IngestError, match=rf"one {what} is left: read: 29 .*needed to recommend. Check --{what}=NAME"):
        ingest(str(log), None, tmp_path / "shop", config(), quiet)


def test_times_that_are_all_one_are_called_so(log, tmp_path, config):
    log.write_text("user,item,time\n1,1,1398902400\n1,2,1398902400\n2,1,1398902400\n")
    with pytest.raises(IngestError, match=r"all events have one time \(2014-05-01\); .*--split=leave_one_out"):
        ingest(str(log), None, tmp_path / "shop", config(), quiet)


def test_dates_of_another_form(log, tmp_path, config):
    """The form counts behind the first rows, too."""
    rows = "".join(f"{n % 40},{n % 7},{1 + n % 28:02}.02.2024\n" for n in range(1_100))
    log.write_text(f"user,item,time\n{rows}")
    settings = dataclasses.replace(config(), files=Files(time_format="%d.%m.%Y"))
    assert ingest(str(log), None, tmp_path / "shop", settings, quiet)["cut"]["valid_from"] > 1_706_745_600_000
    log.write_text(f"user,item,time\n{rows}1,1,2024-02-01\n")
    with pytest.raises(IngestError, match=r"line 1102: time '2024-02-01': cannot be read as a time of --time_format"):
        ingest(str(log), None, tmp_path / "other", settings, quiet)


def test_an_error_leaves_nothing(log, tmp_path, config):
    for output, settings, message in (
        ("shop", config(item_core=9), "lower the core"),
        ("shop", config(split={"valid_share": 0.01}), "leaves valid empty"),
        ("in", config(), "in exists and is kept"),
    ):
        with pytest.raises(IngestError, match=message):
            ingest(str(log), None, tmp_path / output, settings, quiet)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("line", ["1,2", "1,2,3,4", '"1,2,3'])
def test_a_malformed_line_is_named_and_leaves_nothing(log, tmp_path, config, line):
    log.write_text(LOG + line + "\n")
    with pytest.raises(
        IngestError, match=rf"log\.csv, line 14: '{line}.*' cannot be read .*correct or remove the line"
    ):
        ingest(str(log), None, tmp_path / "shop", config(), quiet)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_events_of_the_future_are_warned_of(log, tmp_path, config):
    with log.open("a") as file:
        file.write("9,0,32503680000\n")
    record = ingest(str(log), None, tmp_path / "shop", config(split={"how": "leave_one_out"}), quiet)
    assert (
        "1 events are in the future, up to 3000-01-01; check the times, or drop such events by --until"
        in (record["warnings"])
    )
