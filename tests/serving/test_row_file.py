"""Rows of a file whatever its format; tests/serving/test_user_file.py reads files of users through them."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.serving.row_file import RowForm, file_rows, is_stream

FORM = RowForm((("user", "items"), ("item",)), "give a list", KeyError)


def test_the_first_form_that_a_parquet_file_has_is_read(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"item": ["a", "b"], "x": [1, 2]}), path)
    assert list(file_rows(path, FORM)) == [(1, {"item": "a"}), (2, {"item": "b"})]
    pq.write_table(pa.table({"items": [["a"]], "user": [1], "item": ["b"]}), path)
    assert list(file_rows(path, FORM)) == [(1, {"user": 1, "items": ["a"]})]
    pq.write_table(pa.table({"user": [1]}), path)
    with pytest.raises(KeyError, match=r"with columns user and items or item .*it lacks items"):
        list(file_rows(path, FORM))


def test_lines_are_numbered_and_blank_ones_left_out(tmp_path):
    path = tmp_path / "f"
    for content in (b"a\n\n b\n", gzip.compress(b"a\n\n b\n")):
        path.write_bytes(content)
        assert list(file_rows(path, FORM)) == [(1, b"a\n"), (3, b" b\n")]
    path.write_bytes(b"PK\x03\x04...")
    with pytest.raises(KeyError, match="is a zip archive; give a list"):
        list(file_rows(path, FORM))
    assert not is_stream(path)
    assert is_stream(tmp_path)
