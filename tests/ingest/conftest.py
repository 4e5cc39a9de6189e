import duckdb
import pytest

from atspeed_jax.ingest.settings import Columns, Filters, IngestSettings, Limits, Split
from atspeed_jax.ingest.tables import open_table


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET threads=1")
        yield connection


@pytest.fixture
def table(connection, tmp_path):
    """table(text, name="log.csv"): the table of a file that holds the text."""

    def opened(text, name="log.csv", **settings):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return open_table(connection, str(file), **settings)

    return opened


@pytest.fixture
def events(connection):
    """events(rows): makes the table `events` of rows (u, i, t)."""

    def make(rows):
        connection.execute("CREATE OR REPLACE TABLE events (u INTEGER, i INTEGER, t BIGINT)")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)

    return make


@pytest.fixture
def config():
    """config(columns={}, split={}, **filters): settings of launch.ingest."""

    def make(columns=None, split=None, **filters):
        return IngestSettings(Columns(**columns or {}), Filters(**filters), Split(**split or {}), Limits(1.0, 1))

    return make
