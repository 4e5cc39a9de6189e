import gzip

import pytest

from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.ingest.tables import column, line_of_row, name_sql, open_table, quoted
from atspeed_jax.ingest.text_files import explained

ROWS = [("007", "a b"), ("1e3", "")]


def rows(connection, table):
    with explained(table.name):
        return connection.execute(f"SELECT * FROM {table.sql}").fetchall()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", "user,item\n007,a b\n1e3,\n"),
        ("log.tsv", "user\titem\n007\ta b\n1e3\t\n"),
        ("log.txt", "user;item\r\n007;a b\r\n1e3;\r\n"),
        ("log.inter", "user|item\n007|a b\n1e3|"),
        ("log.CSV", "\ufeffuser,item\n007,a b\n1e3,\n"),
    ],
)
def test_cells_of_text_files_stay_text(connection, table, name, text):
    found = table(text, name)
    assert found.columns == ("user", "item")
    assert [(user, item or "") for user, item in rows(connection, found)] == ROWS


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_gzip(connection, tmp_path, name):
    text = "user,item\n007,a b\n" if "csv" in name else '{"user": "007", "item": "a b"}\n'
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert rows(connection, open_table(connection, str(tmp_path / name))) == ROWS[:1]


def test_parquet_and_a_pattern_of_files(connection, tmp_path):
    for number in range(2):
        connection.execute(f"COPY (SELECT {number} AS user) TO '{tmp_path}/part-{number}.parquet' (FORMAT parquet)")
    found = open_table(connection, f"{tmp_path}/part-*.parquet")
    assert rows(connection, found) == [(0,), (1,)]
    assert found.name == f"{tmp_path}/part-0.parquet and 1 more"
    assert found.first_line == 0


def test_several_files_and_what_is_whole(connection, tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"user": {value}, "item": "{value}"}}\n')
    found = open_table(connection, f"{tmp_path}/b.jsonl,{tmp_path}/a.jsonl")
    assert (rows(connection, found), found.whole) == ([("2", "2"), ("1", "1")], {"user"})


def test_values_of_json_are_texts_whatever_the_lines_hold(connection, table):
    found = table(
        '{"user": "2020-01-01", "item": null, "User": 5}\n\n{"user": 7, "item": [1, "a"], "more": {}}\n', "l.json"
    )
    assert found.columns == ("user", "item", "more")
    assert rows(connection, found) == [("2020-01-01", None, None), ("7", '[1,"a"]', "{}")]


def test_header_may_be_given(connection, table):
    found = table("007,a b\n", header=("user", "item"))
    assert (rows(connection, found), found.first_line) == (ROWS[:1], 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.csv: is empty"),
        ("sep=;\na;b\n", r"log\.csv, line 1: 'sep=;' is a mark of Excel, no line of columns; remove this line"),
        ("a,a\n", r"log\.csv, line 1: columns \['a', 'a'\]; expected a name for each column, each once \(a and A"),
        ("a,A\n", r"log\.csv, line 1: columns \['a', 'A'\]; expected a name for each column, each once"),
    ],
)
def test_headers_that_cannot_be_are_refused(table, text, message):
    with pytest.raises(IngestError, match=message):
        table(text)


def test_a_column_without_a_name_is_called_by_its_place(connection, table):
    found = table(",user,item\n0,a,b\n")  # as pandas writes its index
    assert (found.columns, rows(connection, found)) == (("column 1", "user", "item"), [("0", "a", "b")])


def test_files_of_one_pattern_are_alike(connection, tmp_path):
    (tmp_path / "a.csv").write_text("user,item\n1,2\n")
    (tmp_path / "b.csv").write_text("item,user\n1,2\n")
    (tmp_path / "c.jsonl").write_text("{}\n")
    with pytest.raises(IngestError, match=r"b\.csv: the header 'item,user' differs from 'user,item'"):
        open_table(connection, f"{tmp_path}/*.csv")
    with pytest.raises(IngestError, match="several forms: csv, json"):
        open_table(connection, f"{tmp_path}/*")


def test_texts_and_names_in_sql(connection):
    assert connection.execute(f"SELECT {quoted(chr(39) + ';')} AS {column('a' + chr(34))}").fetchall() == [("';",)]


def test_a_name_with_the_marks_of_a_pattern_is_a_name(connection, tmp_path):
    (tmp_path / "log[1].csv").write_text("user\n7\n")
    (tmp_path / "log1.csv").write_text("user\n8\n")
    assert rows(connection, open_table(connection, f"{tmp_path}/log[1].csv")) == [("7",)]


def test_names_are_integers_or_texts_and_whole_floats_integers(connection, tmp_path):
    values = "(7.0::DOUBLE, 'x ', [1], 5), (7.5, ' ', [1], 5), (1e300, 'z', [1], 5), ('nan'::DOUBLE, NULL, [1], 5)"
    connection.execute(f"COPY (FROM (VALUES {values}) t(a, b, c, d)) TO '{tmp_path}/t.parquet' (FORMAT parquet)")
    found = open_table(connection, f"{tmp_path}/t.parquet")
    names = [name_sql(connection, found, name) for name in ("a", "b", "d")]
    assert connection.execute(f"SELECT {', '.join(names)} FROM {found.sql}").fetchall() == [
        ("7", "x", 5),
        ("7.5", None, 5),
        ("1e+300", "z", 5),
        (None, None, 5),
    ]
    assert found.whole == {"d"}
    with pytest.raises(IngestError, match=r"column c holds INTEGER\[\]; expected names"):
        name_sql(connection, found, "c")


def test_a_key_with_a_dot_goes_before_a_path(connection, table):
    found = table('{"a": {"b": 1, "c d": {"e": "x"}}, "a.b": "flat"}\n{"a": 5}\n', "l.json")
    assert found.columns == ("a", "a.b", "a.c d", "a.c d.e")
    assert rows(connection, found)[0][1::2] == ("flat", "x")
    assert rows(connection, found)[1][0] == "5"
    assert found.objects >= {"a", "a.c d"}


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("a,b\n1,2\n3,4\n5,6\n", "log.csv", 4),
        ('a,b\n"x\ny ""z"" \n",2\n3,4\n5,6\n', "log.csv", 6),
        ("a,b\r\n1,2\r\n\r\n\r\n3,4\r\n5,6\r\n", "log.csv", 6),
        ("a\n1\n\n5\n", "log.csv", 4),
        ('a|b\n1|2"\n3|4\n5|6\n', "log.csv", 4),
        ('{"a": "\\""}\n\n{"a": 2}\n{"a": 3}\n', "log.jsonl", 4),
    ],
)
def test_the_line_of_a_row(table, text, name, line):
    assert line_of_row(table(text, name), 3) == line


def test_rows_of_parquet_and_of_several_files_are_no_lines(connection, tmp_path):
    connection.execute(f"COPY (SELECT 1 AS a FROM range(9)) TO '{tmp_path}/t.parquet'")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a\n1\n2\n3\n4\n")
    for name in ("t.parquet", "*.csv"):
        assert line_of_row(open_table(connection, f"{tmp_path}/{name}"), 3) is None
