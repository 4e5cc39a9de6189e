import json

import pyarrow.parquet as pq
import pytest

from atspeed_jax.ingest.ingest import ingest
from atspeed_jax.ingest.settings import IngestError

LOG = "user,item,time\n" + "".join(f"{user},{item},{user + 3 * item}\n" for user in range(3) for item in range(4))


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
        file.write("9,0,0\n")
    record = ingest(str(log), None, tmp_path / "shop", config(split={"how": "rolling"}), quiet)
    assert record["rows"]
    assert record["warnings"] == ["1 users have one event; --user_core=2 leaves them out"]


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
