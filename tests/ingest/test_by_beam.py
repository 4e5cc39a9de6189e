"""Beam's filters and splits beside those of one machine; needs tests/beam.txt."""

import duckdb
import pytest

pytest.importorskip("apache_beam")

from atspeed_jax.ingest.by_beam import by_beam
from atspeed_jax.ingest.ingest import ingest
from atspeed_jax.ingest.settings import Columns, Filters, IngestError, IngestSettings, Limits, Split

FILES = ("interactions", "users", "items", "histories")
RUNNER = ("--runner=DirectRunner",)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log in three files, with repeats, equal events, and users and items of few events."""
    directory = tmp_path_factory.mktemp("log")
    with duckdb.connect() as connection:
        for part in range(3):
            connection.execute(
                "COPY (SELECT (hash(n) % 40)::BIGINT AS user, "
                "'B' || (hash(n, 1) % 60 % (1 + hash(n, 2) % 60)) AS asin, "
                "(1 + hash(n, 3) % 5)::DOUBLE AS rating, 1400000000 + (hash(n, 4) % 40) * 43200 AS timestamp "
                f"FROM range({part * 300}, {part * 300 + 300}) r(n)) TO '{directory}/part-{part}.parquet'"
            )
        connection.execute(
            "COPY (SELECT 'B' || n AS item, CASE WHEN n % 7 > 0 THEN 'title ' || n END AS title FROM range(60) r(n)) "
            f"TO '{directory}/items.csv'"
        )
    return directory


def both_ways(directory, log, items, config):
    """Records and tables of both ways."""
    (directory / "between").mkdir()
    ways = {"one": None, "beam": by_beam(RUNNER, directory / "between")}
    records, tables = [], []
    for name, way in ways.items():
        record = ingest(f"{log}/part-*.parquet", items, directory / name, config, lambda line: None, way)
        records.append({key: value for key, value in record.items() if key != "name"})
        tables.append({file: duckdb.sql(f"FROM '{directory / name / file}.parquet'").fetchall() for file in FILES})
    return records, tables


@pytest.mark.parametrize(
    ("filters", "split"),
    [
        ({}, {}),
        ({"min_rating": 2.0, "user_core": 5, "item_core": 12, "min_train": 3}, {}),
        ({"repeats": "first", "since": 1_400_086_400_000, "until": 1_401_598_400_000}, {"how": "rolling"}),
        ({"repeats": "last", "need_text": True, "user_core": 4}, {"how": "leave_one_out"}),
        ({"item_core": 15}, {"valid_share": 0.3, "test_share": 0.2}),
    ],
)
def test_rows_are_those_of_one_machine(tmp_path, log, filters, split):
    config = IngestSettings(Columns(), Filters(**filters), Split(**split), Limits(1.0, 1))
    records, tables = both_ways(tmp_path, log, f"{log}/items.csv", config)
    for file in FILES:
        assert tables[0][file] == tables[1][file], file
    assert len(tables[0]["interactions"]) > 100
    assert records[0] == records[1]


def test_what_beam_does_not_take(tmp_path, log):
    (tmp_path / "log.csv").write_text("user,item,time\n1,2,3\n")
    for files, filters, message in (
        (tmp_path / "log.csv", {}, "Beam reads parquet; write the log as parquet, or leave out --runner"),
        (f"{log}/part-*.parquet", {"min_rating": 9.0}, "no event is left"),
        (f"{log}/part-*.parquet", {"need_text": True}, "no item file is given"),
    ):
        config = IngestSettings(Columns(), Filters(**filters), Split(), Limits(1.0, 1))
        with pytest.raises(IngestError, match=message):
            ingest(str(files), None, tmp_path / "DATA", config, lambda line: None, by_beam(RUNNER, tmp_path))


@pytest.mark.parametrize("since", [None, 1000])
def test_unknown_times_are_refused_or_dropped_as_on_one_machine(tmp_path, log, since):
    with duckdb.connect() as connection:
        rows = f"SELECT user, asin, timestamp FROM '{log}/part-*.parquet'"
        connection.execute(f"COPY ({rows} UNION ALL SELECT 1, 'B1', -1) TO '{tmp_path}/part-0.parquet'")
    config = IngestSettings(Columns(), Filters(since=since), Split(), Limits(1.0, 1))
    if since is None:
        way = by_beam(RUNNER, tmp_path)
        with pytest.raises(Exception, match="often stands for an unknown time"):
            ingest(f"{tmp_path}/part-0.parquet", None, tmp_path / "DATA", config, print, way)
        return
    records, tables = both_ways(tmp_path, tmp_path, None, config)
    assert tables[0] == tables[1]
    assert records[0] == records[1]
