"""launch.ingest as a user meets it."""

import pyarrow.parquet as pq

from mains import run_mains
from shop_files import write_shop


def test_a_log_is_ingested_and_mistakes_are_told(tmp_path):
    log, items = write_shop(tmp_path / "in")
    log_flag = f"--interactions={log}"
    given = [log_flag, f"--output={tmp_path}/DATA"]
    names = ["--time=bought", f"--items={items}"]
    done, again, unknown, moment, shares = run_mains(
        [
            ("ingest", None, None, [*given, *names, "--core=3", "--since=2025-01-02"], ""),
            ("ingest", None, None, [*given, *names], ""),
            ("ingest", None, None, [log_flag, f"--output={tmp_path}/OTHER"], ""),
            ("ingest", None, None, [*given, "--since=yesterday"], ""),
            ("ingest", None, None, [*given, "--valid_share=0.9"], ""),
        ]
    )
    assert done.code == 0, done.err
    assert "user = customer, item = product, time = bought" in done.out
    assert "users of 3 and items of 3 events" in done.out
    names = pq.read_table(tmp_path / "DATA" / "items.parquet").to_pylist()
    assert names[0]["name"].startswith("B")
    assert names[0]["name"] in names[0]["title"]
    assert "DATA exists and is kept" in again.err
    assert "no column is known as the time; it has customer, product, stars, bought. Name it:" in unknown.err
    assert not (tmp_path / "OTHER").exists()
    assert "--since=yesterday: expected a date" in moment.err
    assert "their sum below 1" in shares.err
    assert {result.code for result in (again, unknown, moment, shares)} == {1}
