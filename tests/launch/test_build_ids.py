"""launch.build_ids as a user meets it."""

import pyarrow.parquet as pq

from mains import run_mains
from shops import write_shop


def test_ids_are_written_with_defaults_by_size_and_not_overwritten(tmp_path):
    directory = write_shop(tmp_path / "shop")
    flags = [f"--data_dir={directory}", "--text=tfidf"]
    first, again, unknown, other = run_mains(
        [
            ("build_ids", None, None, flags, ""),
            ("build_ids", None, None, flags, ""),
            ("build_ids", None, None, [*flags, "--vectors=no.npy", "--overwrite"], ""),
            ("build_ids", None, None, ["--data_dir=" + str(tmp_path / "none")], ""),
        ]
    )
    assert first.code == 0, first.err
    assert "60 items: 3 levels of 16 codes, kmeans" in first.out
    assert "--vectors=text+cooccurrence: 60 of 60 items have a text" in first.out
    assert len(pq.read_table(directory / "index.parquet")) == 60
    assert "pass --overwrite" in again.err
    assert "error: --vectors=no.npy: expected" in unknown.err
    assert "no such directory" in other.err
    assert {result.code for result in (again, unknown, other)} == {1}
