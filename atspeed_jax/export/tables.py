"""Lists and figures of a run as parquet tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import held_out_users
from atspeed_jax.evaluation.quality import HABITS, QUALITY_METHODS
from atspeed_jax.export.directory import appearing
from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.serving.user_file import User


def export_lists(
    directory: Path,
    lists: Lists,
    dataset: Dataset,
    titles: Mapping[int, str] = MappingProxyType({}),
    names: ItemNames | None = None,
) -> None:
    """Writes lists.parquet, a row per user with test items; raises as `export_hf`.

    Columns: "user"; "history", the items known before the test split, oldest first;
    "items", the list (`recommend.lists_of`), best first, with "scores"; "next", the
    user's test items. Items are called as `names` says, and by their numbers without
    it. If `titles` has titles of items: "titles", those of "items", null for an item
    without one. Where users are asked once per row, a row of the table is such a row.
    """
    users = held_out_users(dataset, "test")
    with appearing(Path(directory)) as partial:
        items, scores = lists([User(*one) for one in zip(users.users, users.histories, strict=True)])
        found = {
            "user": users.users,
            "history": users.histories,
            "items": [row[row >= 0] for row in items],
            "scores": [of_list[row >= 0] for row, of_list in zip(items, scores, strict=True)],
            "next": users.truths,
        }
        if titles:
            titled = [[titles.get(item) for item in row.tolist()] for row in found["items"]]
            found["titles"] = pa.array(titled, pa.list_(pa.string()))
        if names is not None and names.names is not None:
            kind = pa.list_(pa.string() if names.texts else pa.int64())
            for column in ("history", "items", "next"):
                called = (names.called(np.asarray(row).tolist()) for row in found[column])
                found[column] = pa.array([list(map(str, row)) if names.texts else row for row in called], kind)
        pq.write_table(pa.table(found), partial / "lists.parquet")


def export_figures(directory: Path, report: Mapping) -> None:
    """Writes a report's figures as tables; raises as `export_hf`.

    decoding.parquet has the report's decoding rows, quality.parquet a row per method,
    habit and figure: "method", "kind", "figure", "value", "low", "high".
    """
    rows = []
    for method in QUALITY_METHODS:
        for kind in HABITS:
            entry = report["quality"][method][kind]
            for figure, (low, high) in entry.get("intervals", {}).items():
                row = {"method": method, "kind": kind, "figure": figure, "value": entry[figure]}
                rows.append(row | {"low": low, "high": high})
    decoding = [row | {"widths": [str(width) for width in row["widths"] or []]} for row in report["decoding"]]
    with appearing(Path(directory)) as partial:
        pq.write_table(pa.Table.from_pylist(decoding), partial / "decoding.parquet")
        pq.write_table(pa.Table.from_pylist(rows), partial / "quality.parquet")
