"""The directory of launch.ingest and launch.build_ids."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layouts
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.layouts import read_source
from atspeed_jax.data.sources import SourceError

USERS = list(layouts.USERS.values())


def listed(sequences):
    return [items.tolist() for items in sequences]


def test_users_items_and_names_are_those_of_the_files(tmp_path):
    source = read_source("ingested", layouts.write_ingested(tmp_path / "data"))
    assert (source.name, source.codes.tolist()) == ("shop", layouts.IDS)
    assert (source.titles, source.names) == (layouts.TITLES, tuple(layouts.NAMES))
    assert listed(source.train) == [items[:-2] if len(items) > 2 else items for items in USERS]
    assert listed(source.valid) == [items[-2:-1] if len(items) > 2 else [] for items in USERS]
    assert listed(source.test) == [items[-1:] if len(items) > 2 else [] for items in USERS]
    assert not source.rows


def test_held_out_items_are_asked_one_by_one_with_all_before_them(tmp_path):
    source = read_source("ingested", layouts.write_ingested(tmp_path / "data", rows=True))
    Dataset.of(source)  # checks that the rows are those of valid and test
    for split, back in (("valid", 2), ("test", 1)):
        rows, asked = source.rows[split], [(u, items) for u, items in enumerate(USERS) if len(items) > 2]
        assert rows.users.tolist() == [user for user, _ in asked]
        assert rows.targets.tolist() == [items[-back] for _, items in asked]
        assert listed(rows.histories) == [items[:-back] for _, items in asked]


def column(name, values):
    def change(directory):
        file = directory / "interactions.parquet"
        table = pq.read_table(file)
        pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), file)

    return change


def record(**fields):
    def change(directory):
        file = directory / "ingest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def renamed(directory):
    table = pq.read_table(directory / "items.parquet")
    names = pa.array(["B07", "B01", "B34", "B02"])
    pq.write_table(table.set_column(1, "name", names), directory / "items.parquet")


EVENTS = sum(map(len, USERS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: (d / "index.parquet").unlink(),
            r"no ids yet; in the checkout run `python -m launch\.build_ids --data_dir=.*data`",
        ),
        (lambda d: (d / "ingest.json").unlink(), r"ingest\.json: no such file.*launch\.ingest"),
        (record(format=2), "format is 2, expected 1"),
        (record(users="3"), "users is '3', expected a int"),
        (record(items=5), "4 items, but the log has 5"),
        (renamed, "item 2 is 'B33', but 'B34' in items.parquet"),
        (column("item", [0, 4] * (EVENTS // 2)), r"row 1: item is 4, expected 0\.\.3"),
        (column("user", [0.5] * EVENTS), "column user holds double|column user holds float64"),
        (column("user", [1, 0] * (EVENTS // 2)), "row 1: rows are not sorted by user and split"),
        (column("split", [1] * EVENTS), "no training interactions"),
        (lambda d: (d / "interactions.parquet").write_bytes(b"PAR1"), "cannot be read as parquet"),
    ],
)
def test_damaged_directories_are_refused_by_name(tmp_path, change, said):
    directory = layouts.write_ingested(tmp_path / "data")
    change(directory)
    with pytest.raises(SourceError, match=said):
        read_source("ingested", directory)
