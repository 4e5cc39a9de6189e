"""A small data directory as launch.ingest writes it: items of a few clusters with texts, users who stay in theirs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ("shampoo hair curl", "lipstick red lips", "cream face dry", "perfume rose bottle", "nail polish brush")


def cluster_of(items: int) -> np.ndarray:
    """Cluster of every item."""
    return np.random.default_rng(7).integers(len(WORDS), size=items)


def item_columns(items: int, first: int = 0) -> dict[str, list]:
    """Columns of items `first`.. of the shop: name, title, text."""
    cluster, rng = cluster_of(first + items)[first:], np.random.default_rng(first)
    words = [rng.choice(WORDS[number].split(), 4).tolist() for number in cluster]
    return {
        "name": [f"B{first + item:03}" for item in range(items)],
        "title": [f"{' '.join(some[:2])} {first + item}" for item, some in enumerate(words)],
        "text": [f"{' '.join(some)} number{item % 7}" for item, some in enumerate(words)],
    }


def write_shop(directory: Path, items: int = 60, users: int = 50, **columns) -> Path:
    """Writes items.parquet and interactions.parquet; `columns` add or replace columns of the items, None removes one.

    The last two items are in no training interaction.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng, cluster = np.random.default_rng(1), cluster_of(items)
    table = {"item": pa.array(range(items), pa.int32()), **item_columns(items)} | columns
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), directory / "items.parquet")
    rows = []
    for user in range(users):
        pool = np.flatnonzero(cluster[: items - 2] == user % len(WORDS))
        chosen = rng.choice(pool, min(8, len(pool)), replace=False)
        rows += [(user, item, 1000 * time, min(max(time - 5, 0), 2)) for time, item in enumerate(chosen)]
    rows += [(0, items - 1, 10_000, 2)]
    log = pa.table(dict(zip(("user", "item", "time", "split"), map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(log, directory / "interactions.parquet")
    return directory
