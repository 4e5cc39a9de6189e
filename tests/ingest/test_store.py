import pyarrow.parquet as pq
import pytest

from atspeed_jax.ingest import store


@pytest.fixture
def tables(connection, events):
    """The tables of users 10, 20, 30 and items a, b, c; user 20 and item b have no events."""
    connection.execute("CREATE TABLE users AS FROM (VALUES (0, 10), (1, 20), (2, 30)) t(u, name)")
    connection.execute(
        "CREATE TABLE items AS FROM (VALUES (0, 'a'), (1, 'b'), (2, 'c')) t(i, name), LATERAL (SELECT name AS text)"
    )
    events([(2, 0, 9), (2, 2, 7), (0, 2, 5), (2, 0, 7)])


def rows(file):
    return [tuple(row.values()) for row in pq.read_table(file).to_pylist()]


def test_numbers_have_no_gaps_and_rows_are_sorted(connection, tables, tmp_path):
    counts = store.write_tables(connection, tmp_path, "(t >= 9)::INTEGER")
    assert counts == {0: 3, 1: 1}
    assert rows(tmp_path / "interactions.parquet") == [(0, 1, 5, 0), (1, 0, 7, 0), (1, 1, 7, 0), (1, 0, 9, 1)]
    assert rows(tmp_path / "users.parquet") == [(0, 10), (1, 30)]
    assert rows(tmp_path / "items.parquet") == [(0, "a", None), (1, "c", None)]
    types = [str(field.type) for field in pq.read_schema(tmp_path / "interactions.parquet")]
    assert types == ["int32", "int32", "int64", "int8"]


def test_items_have_their_properties(connection, tables, tmp_path):
    connection.execute(
        "CREATE TABLE item_texts AS FROM (VALUES ('c', 'C', [1.5]), ('b', 'B', [2])) t(name, title, vector)"
    )
    store.write_tables(connection, tmp_path, "0")
    assert rows(tmp_path / "items.parquet") == [(0, "a", None, None), (1, "c", "C", [1.5])]
    assert pq.read_schema(tmp_path / "items.parquet").names == ["item", "name", "title", "vector"]


@pytest.mark.parametrize("group", [1, 2, 3, 1_000_000])
def test_histories_are_named_and_whole_whatever_the_groups(connection, tables, tmp_path, monkeypatch, group):
    monkeypatch.setattr(store, "GROUP", group)
    store.write_tables(connection, tmp_path, "0")
    store.write_histories(tmp_path)
    assert rows(tmp_path / "histories.parquet") == [(10, ["c"]), (30, ["a", "c", "a"])]
