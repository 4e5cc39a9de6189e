"""Files by their names."""

import pytest

from atspeed_jax.ingest.given_files import files_of, kind_of
from atspeed_jax.ingest.settings import IngestError


def test_several_names_and_patterns_in_order(tmp_path):
    for name in ("b.csv", "a.csv", "c,d.csv"):
        (tmp_path / name).touch()
    assert [file.name for file in files_of(f"{tmp_path}/b.csv,{tmp_path}/a.csv")] == ["b.csv", "a.csv"]
    assert [file.name for file in files_of(f"{tmp_path}/?.csv")] == ["a.csv", "b.csv"]
    assert [file.name for file in files_of(f"{tmp_path}/c,d.csv")] == ["c,d.csv"]
    with pytest.raises(IngestError, match=r"a\.csv is named twice; name each file once"):
        files_of(f"{tmp_path}/a.csv,{tmp_path}/?.csv")


def test_names_of_files(tmp_path):
    with pytest.raises(IngestError, match=r"none\.csv: no such file; give a file or a pattern"):
        files_of(str(tmp_path / "none.csv"))
    with pytest.raises(IngestError, match=r"log\.xlsx: the name says no known form; expected .*\.csv, .*\.csv\.gz"):
        kind_of(tmp_path / "log.xlsx")


def test_a_directory_is_no_log(tmp_path):
    with pytest.raises(IngestError, match=r"is a directory; name the files in it, as .*\*\.csv"):
        files_of(str(tmp_path))
