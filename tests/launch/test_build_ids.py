"""launch.build_ids as a user meets it."""

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from mains import run_mains
from shop_directory import item_columns, write_shop


def test_ids_are_made_and_new_items_get_theirs(tmp_path):
    directory = write_shop(tmp_path / "shop")
    pcsv.write_csv(pa.table(item_columns(2, first=60)), tmp_path / "new.csv")
    flags, output = [f"--data_dir={directory}", "--text=tfidf"], tmp_path / "grown.parquet"
    first, again, assigned = run_mains(
        [
            ("build_ids", None, None, flags, ""),
            ("build_ids", None, None, flags, ""),
            ("build_ids", None, None, [flags[0], f"--assign={tmp_path}/new.csv", f"--output={output}"], ""),
        ]
    )
    assert first.code == 0, first.err
    assert "60 items: 3 levels of 16 codes, kmeans" in first.out
    assert "--vectors=text+cooccurrence: 60 of 60 items have a text" in first.out
    assert "items that shared codes before collisions were resolved" in first.out
    assert len(pq.read_table(directory / "index.parquet")) == 60
    assert (directory / "ids_report.html").exists()
    assert again.code == 1
    assert "pass --overwrite" in again.err
    assert assigned.code == 0, assigned.err
    assert "2 new items, 62 in all" in assigned.out
    assert pq.read_table(output)["name"].to_pylist()[60:] == ["B060", "B061"]
