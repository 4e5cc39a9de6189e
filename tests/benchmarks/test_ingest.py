import pyarrow.parquet as pq

from atspeed_jax.benchmarks.ingest import IngestBenchmark, measure_ingest, write_log

SMALL = IngestBenchmark(core=2)


def test_a_log_is_generated_ingested_and_measured(tmp_path):
    logs = [tmp_path / name for name in ("log.csv", "again.csv", "other.csv")]
    for log, seed in zip(logs, (0, 0, 1), strict=True):
        write_log(IngestBenchmark(seed=seed), 3_000, log)
    same, again, other = (sorted(log.read_text().splitlines()) for log in logs)
    assert same == again != other
    said = []
    row = measure_ingest(SMALL, logs[0], said.append)
    assert row["interactions"] == 3_000
    rated = sum(int(line.split(",")[2]) >= 2 for line in same[:-1])  # the header is the last line
    assert 0.75 * 3_000 < rated < 0.85 * 3_000
    assert row["kept"] <= rated
    assert row["kept"] == pq.read_metadata(tmp_path / "log.data" / "interactions.parquet").num_rows
    assert row["log_gib"] == logs[0].stat().st_size / 2**30
    assert all(row[name] > 0 for name in ("seconds", "peak_gib", "data_gib"))
    assert any("s  split: train" in line for line in said)
