import numpy as np
import pyarrow.parquet as pq
import pytest

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.export.tables import export_figures, export_lists
from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.recommend import lists_of
from atspeed_jax.serving.settings import Setting


def test_lists_as_a_table(small_run, tmp_path):
    """Every test user's, in evaluation's own words: its recall is that of the report."""
    run = small_run.run
    c, dataset = run.config, run.dataset
    shape = BatchShape(c.data.history, c.evaluate.buckets, 8)
    lists = lists_of(run.decoders(None), Setting.beam_search(10, "vocab"), dataset, shape, exclude_seen=False)
    titles = {item: f"item {item}" for item in range(1, dataset.catalog.items)}
    export_lists(tmp_path / "lists", lists, dataset, titles)
    rows = pq.read_table(tmp_path / "lists" / "lists.parquet").to_pylist()
    assert [row["user"] for row in rows] == [user for user, items in enumerate(dataset.test) if len(items)]
    for row in rows:
        assert row["history"] == dataset.history(row["user"], "test").tolist()
        assert row["next"] == dataset.test[row["user"]].tolist()
        assert row["titles"] == [titles.get(item) for item in row["items"]]
        assert len(row["items"]) == len(row["scores"]) == 10
        assert row["scores"] == sorted(row["scores"], reverse=True)
    names = ItemNames(dataset.catalog.items, tuple(f"B{item}" for item in range(dataset.catalog.items)))
    export_lists(tmp_path / "named", lists, dataset, titles, names)
    for row, named in zip(rows, pq.read_table(tmp_path / "named" / "lists.parquet").to_pylist(), strict=True):
        changed = {column: [f"B{item}" for item in row[column]] for column in ("history", "items", "next")}
        assert named == row | changed
    hits = [len(set(row["items"]) & set(row["next"])) / len(row["next"]) for row in rows]
    assert np.mean(hits) == pytest.approx(small_run.report["quality"]["target"]["seen_kept"]["recall@10"])


def test_figures_as_tables(small_run, tmp_path):
    export_figures(tmp_path / "figures", small_run.report)
    decoding = pq.read_table(tmp_path / "figures" / "decoding.parquet").to_pylist()
    assert [row["target_calls_mean"] for row in decoding] == [
        r["target_calls_mean"] for r in small_run.report["decoding"]
    ]
    rows = pq.read_table(tmp_path / "figures" / "quality.parquet").to_pylist()
    (one,) = [r for r in rows if (r["method"], r["kind"], r["figure"]) == ("popularity", "seen_removed", "ndcg@5")]
    entry = small_run.report["quality"]["popularity"]["seen_removed"]
    assert one["value"] == entry["ndcg@5"]
    assert [one["low"], one["high"]] == list(entry["intervals"]["ndcg@5"])
    assert {row["method"] for row in rows} == {"target", "popularity", "covisitation"}
