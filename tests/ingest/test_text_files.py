"""What is said of text files that cannot be read."""

import gzip

import pytest

from atspeed_jax.ingest.settings import IngestError
from atspeed_jax.ingest.tables import open_table
from atspeed_jax.ingest.text_files import LINE, explained, first_line, first_objects, open_text, packed


def rows(connection, table):
    with explained(table.name):
        return connection.execute(f"SELECT * FROM {table.sql}").fetchall()


def test_a_malformed_line_is_named(connection, table):
    with pytest.raises(IngestError, match=r"log\.csv, line 3: '4,5,6' cannot be read \(Expected Number of"):
        rows(connection, table("user,item\n1,2\n4,5,6\n7,8\n"))


def test_truncated_gzip_is_named(connection, tmp_path):
    file = tmp_path / "log.csv.gz"
    file.write_bytes(gzip.compress(b"user,item\n" + bytes(range(48, 58)) * 999)[:-9])
    with pytest.raises(IngestError, match=r"log\.csv\.gz: cannot be read"):
        rows(connection, open_table(connection, str(file)))


def test_a_malformed_line_of_json_is_named(connection, table):
    lines = '{"user": 1}\n' * 2_000
    with pytest.raises(IngestError, match=r"log\.jsonl, line 2001: '\{\"user\":' is no JSON object; expected one on"):
        rows(connection, table(lines + '{"user": \n' + lines, "log.jsonl"))
    for line in ("{user: 1}", "[1, 2]", "7"):
        with pytest.raises(IngestError, match=r"log\.jsonl, line 2: .* is no JSON object"):
            table(f'{{"user": 1}}\n{line}\n', "log.jsonl")


def test_other_encodings(connection, tmp_path):
    file = tmp_path / "log.csv"
    file.write_bytes("user,item\na,b\né,b\n".encode("latin-1"))
    assert rows(connection, open_table(connection, str(file), encoding="latin-1")) == [("a", "b"), ("é", "b")]
    with pytest.raises(IngestError, match=r"log\.csv, line 3: is no UTF-8 text; save it as UTF-8, or give --encoding"):
        rows(connection, open_table(connection, str(file)))
    file.write_bytes("üser,item\n".encode("latin-1"))
    with pytest.raises(IngestError, match=r"log\.csv, line 1: .*ser,item' is no utf-8 text"):
        first_line(file)


def test_gzip_is_known_by_its_content(tmp_path):
    plain, zipped = tmp_path / "a.csv", tmp_path / "b.csv"
    plain.write_text("\ufeffa,b\n")
    zipped.write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert (packed([plain]), packed([zipped])) == ("none", "gzip")
    with open_text(zipped) as text:
        assert text.read() == '{"a": 1}\n'
    assert (first_line(plain), first_objects(zipped)) == ("a,b", [{"a": 1}])
    with pytest.raises(IngestError, match=r"b\.csv is gzip, .*a\.csv is not"):
        packed([plain, zipped])
    zipped.write_bytes(gzip.compress(b'{"a": 1}\n' * 999)[:-9])
    with pytest.raises(
        IngestError, match=r"b\.csv: cannot be read \(.*end-of-stream.*\); fetch or write the file again"
    ):
        first_objects(zipped)


def test_a_line_that_is_too_long_is_not_printed(connection, table):
    with pytest.raises(
        IngestError, match=r"items\.csv: a line is longer than 33,554,432 characters; shorten it"
    ) as found:
        rows(connection, table("item,text\na," + "x" * (LINE + 9) + "\n", "items.csv"))
    assert len(str(found.value)) < 300


def test_line_ends_of_several_kinds_are_named(connection, tmp_path):
    file = tmp_path / "log.csv"
    file.write_bytes(b"user,item\r\n" + b"".join(b"1,2\n" if n % 2 else b"3,4\r\n" for n in range(60)))
    with pytest.raises(IngestError, match=r"log\.csv: lines cannot be told apart, .* CR LF and others in LF"):
        rows(connection, open_table(connection, str(file)))
