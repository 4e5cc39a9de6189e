import pytest

from atspeed_jax.ingest.log import load_log
from atspeed_jax.ingest.settings import Columns, Filters, IngestError
from atspeed_jax.ingest.tables import open_table

HEADER = "customer,product,stars,ts\n"


def loaded(connection, table, lines, columns=None, **filters):
    return load_log(connection, table(HEADER + lines), Columns(**columns or {}), Filters(**filters), lambda line: None)


def test_users_and_items_are_numbered_in_the_order_of_their_names(connection, table):
    found = loaded(connection, table, "b,10,5,20\na,9,5,10\nb,9,5,30\nb,9,5,30\n")
    assert found.columns == {"user": "customer", "item": "product", "time": "ts"}
    assert found.steps == [("read", 4, 2, 2), ("repeated events removed", 3, 2, 2)]
    assert connection.execute("SELECT u, name FROM users ORDER BY u").fetchall() == [(0, "a"), (1, "b")]
    assert connection.execute("SELECT i, name FROM items ORDER BY i").fetchall() == [(0, 9), (1, 10)]
    assert connection.execute("FROM events ORDER BY ALL").fetchall() == [(0, 0, 10_000), (1, 0, 30_000), (1, 1, 20_000)]


@pytest.mark.parametrize("name", ["007", "1.0", "+1", "12345678901234567890", "x"])
def test_a_name_that_is_no_plain_number_keeps_all_names_text(connection, table, name):
    loaded(connection, table, f"1,{name},5,1\n2,3,5,1\n")
    assert connection.execute("SELECT name FROM items ORDER BY i").fetchall() == sorted([(name,), ("3",)])


def test_rating_and_time_window(connection, table):
    lines = "a,x,5,1\na,y,3,2\na,z,4.5,3\nb,x,5,4\n"
    found = loaded(connection, table, lines, min_rating=4.0, since=1000, until=4000)
    assert found.steps[1] == ("rated and in the time window", 2, 1, 2)
    assert connection.execute("SELECT name FROM items ORDER BY i").fetchall() == [("x",), ("z",)]


@pytest.mark.parametrize(
    ("lines", "filters", "message"),
    [
        ("a,x,5,1\n ,x,5,1\n", {}, r"line 3: customer ' ': expected a value of user \(1 of 2 rows lack it\)"),
        ("a,,5,1\n", {}, r"line 2: product \(the cell is empty\): expected a value of item"),
        ("a,x,5,9\na,y,5,0\na,z,5,-1\n", {}, r"line 3: ts '0' \(2 of 3 rows are such\): .*correct or .*--since"),
        ("a,x,5,1400000000123\na,y,5,-1\n", {"since": -9}, r"line 3: ts '-1' \(1 of 2 rows are such\)"),
        ("a,x,,1\n", {"min_rating": 4.0}, "line 2: stars .*: expected a number as the rating"),
        ("a,x,good,1\n", {"min_rating": 4.0}, "line 2: stars 'good': expected a number as the rating"),
        ("a,x,3,1\n", {"min_rating": 4.0}, "no event is left of 1 by rating and time window"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(connection, table, lines, filters, message):
    with pytest.raises(IngestError, match=message):
        loaded(connection, table, lines, **filters)


def test_a_rating_is_needed_only_for_its_filter(connection, table):
    loaded(connection, table, "a,x,good,1\n")
    with pytest.raises(IngestError, match="no column is known as the rating; it has user, item, ts"):
        load_log(connection, table("user,item,ts\na,x,1\n"), Columns(), Filters(min_rating=4.0), lambda line: None)


def test_a_time_of_another_kind_behind_the_head_is_named(connection, table):
    """The unit is that of the first rows; the others are held to it in the pass that reads them."""
    lines = "".join(f"a,x,5,{1_400_000_000 + n}\n" for n in range(1_200))
    with pytest.raises(IngestError, match=r"line 2: ts '1400000000' is in seconds.*line 1202: .*milliseconds"):
        loaded(connection, table, f"{lines}a,x,5,1400000000123\n")
    with pytest.raises(IngestError, match="line 1202: ts 'soon': cannot be read as a time"):
        loaded(connection, table, f"{lines}a,x,5,soon\n")


@pytest.mark.parametrize(("value", "name"), [('"12"', "12"), ("12", 12)])
def test_names_of_json_keep_their_type(connection, table, value, name):
    log = table(f'{{"user": {value}, "item": {value}, "time": 1}}\n', "log.jsonl")
    load_log(connection, log, Columns(), Filters(), lambda line: None)
    assert connection.execute("SELECT users.name, items.name FROM users, items").fetchall() == [(name, name)]


def test_integers_of_parquet_are_names_that_texts_of_items_match(connection, tmp_path):
    rows = "SELECT 300 AS user, i AS item, 1400000000 + i AS time FROM (VALUES (10::SMALLINT), (9)) t(i)"
    connection.execute(f"COPY ({rows}) TO '{tmp_path}/log.parquet' (FORMAT parquet)")
    load_log(connection, open_table(connection, f"{tmp_path}/log.parquet"), Columns(), Filters(), lambda line: None)
    assert connection.execute("SELECT i, name, text FROM items ORDER BY i").fetchall() == [(0, 9, "9"), (1, 10, "10")]
    assert connection.execute("SELECT i, t FROM events ORDER BY i").fetchall() == [
        (0, 1_400_000_009_000),
        (1, 1_400_000_010_000),
    ]


@pytest.mark.parametrize("time", [1_400_000_000, 1_400_000_000_123])
def test_since_drops_unknown_times_of_every_unit(connection, table, time):
    found = loaded(connection, table, f"a,x,5,{time}\na,y,5,0\na,z,5,-1\n", since=1000)
    assert found.steps == [
        ("read", 3, 1, 3),
        ("rated and in the time window", 1, 1, 1),
        ("repeated events removed", 1, 1, 1),
    ]


def test_a_key_of_an_object_may_be_a_column_but_not_the_object(connection, table):
    log = table('{"reader": {"id": 7, "name": "a"}, "item": "x", "time": 1}\n', "log.jsonl")
    with pytest.raises(IngestError, match=r"column reader for .* holds objects.*--user=NAME: reader.id, reader.na"):
        load_log(connection, log, Columns(user="reader"), Filters(), lambda line: None)
    with pytest.raises(IngestError, match=r"known as the user; it has reader, reader\.id, reader\.name, it"):
        load_log(connection, log, Columns(), Filters(), lambda line: None)
    load_log(connection, log, Columns(user="reader.id"), Filters(), lambda line: None)
    assert connection.execute("SELECT name FROM users").fetchall() == [(7,)]
