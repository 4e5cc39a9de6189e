"""How good the lists of the target and of two baselines are, with seen items kept and
removed.

Where seen items are removed, the K best of what a user has not seen are searched for,
so a list stays full. A list is measured twice. At item level a hit is a true item. At
id level a hit is the id of a true item: an item counts as found if another item with
its id is listed, as projects report that measure ids alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from atspeed_jax.evaluation import metrics
from atspeed_jax.items.catalog import Catalog

Habit = Literal["seen_kept", "seen_removed"]
HABITS: tuple[Habit, ...] = get_args(Habit)
CUTS = (1, 5, 10, 20)
BASELINES = ("popularity", "covisitation")
QUALITY_METHODS = ("target", *BASELINES)
FIELDS: dict[str, type] = dict.fromkeys((*QUALITY_METHODS, "differences"), dict)  # of what `measure` gives


class Found(NamedTuple):
    """Lists of N users.

    Attributes:
      items: [N, K]; -1 is an empty entry.
      ids: [N, K] rows of the distinct ids, each once per list; -1 is an empty entry.
    """

    items: np.ndarray
    ids: np.ndarray

    @classmethod
    def of_items(cls, catalog: Catalog, items: np.ndarray) -> Found:
        """Lists of items, with the items' ids in order; an id that several listed items
        share is listed once.
        """
        ids = np.full(items.shape, -1, np.int64)
        for row, listed in zip(ids, items, strict=True):
            carried = catalog.id_of_item[listed[listed >= 0]]
            first = np.sort(np.unique(carried, return_index=True)[1])
            row[: len(first)] = carried[first]
        return cls(items, ids)


def measure(
    lists: Mapping[str, Found],
    catalog: Catalog,
    truths: Sequence[np.ndarray],
    seen: Sequence[np.ndarray],
    *,
    samples: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> dict:
    """Measures the lists of all methods under one habit.

    Args:
      lists: of "target" and of each of BASELINES.
      catalog: of the items.
      truths: N arrays of true items.
      seen: N arrays of the items left out of the lists; empty where seen items are
        kept.
      samples, seed, groups: of the bootstrap (`metrics.bootstrap_interval`).

    Returns:
      {method: entry, "differences": {"target - NAME": entry}}. An entry is that of
      `metrics.summarize`, with "id_recall@k" and "id_ndcg@k" at id level, and counts
      over all users: "hits", true items listed, of "truths", of which "impossible" are
      among `seen`; "id_hits", "id_truths" and "id_impossible", the same of ids, where
      an id is impossible if all its items are among `seen`.
    """
    sampling: dict = {"samples": samples, "seed": seed, "groups": groups}
    true_ids = [catalog.id_of_item[truth] for truth in truths]
    counts = _impossible(catalog, truths, seen)
    measured, report = {}, {}
    for name, found in lists.items():
        cuts = tuple(k for k in CUTS if k <= found.items.shape[1])
        measured[name] = metrics.measure_lists(found.items, truths, cuts, items=catalog.items)
        by_id = metrics.measure_lists(found.ids, true_ids, cuts, items=len(catalog.ids))
        report[name] = metrics.summarize(measured[name], **sampling) | counts
        report[name] |= {f"id_{key}": float(values.mean()) for key, values in by_id.items()}
        report[name]["hits"] = metrics.hits(found.items, truths, items=catalog.items)
        report[name]["id_hits"] = metrics.hits(found.ids, true_ids, items=len(catalog.ids))
    report["differences"] = {
        f"target - {name}": metrics.compare(measured["target"], measured[name], **sampling) for name in BASELINES
    }
    return report


def _impossible(catalog: Catalog, truths: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> dict[str, int]:
    """Counts the distinct true items and ids of all users, and how many of them no list
    can hold.
    """
    shared = np.bincount(catalog.id_of_item, minlength=len(catalog.ids))
    counts: dict[str, int] = dict.fromkeys(("truths", "impossible", "id_truths", "id_impossible"), 0)
    for truth, history in zip(truths, seen, strict=True):
        items = np.unique(truth)
        ids, listed = np.unique(catalog.id_of_item[np.unique(history).astype(np.int64)], return_counts=True)
        true_ids, gone = np.unique(catalog.id_of_item[items]), ids[listed == shared[ids]]
        counts["truths"] += len(items)
        counts["impossible"] += int(np.isin(items, history).sum())
        counts["id_truths"] += len(true_ids)
        counts["id_impossible"] += int(np.isin(true_ids, gone).sum())
    return counts


def by_method(habits: Mapping[Habit, Mapping]) -> dict:
    """Turns `measure` of every habit round.

    Args:
      habits: {habit: `measure`}.

    Returns:
      {method: {habit: entry}, "differences": {name: {habit: entry}}}.
    """

    def turned(entries: Mapping[Habit, Mapping]) -> dict:
        names = next(iter(entries.values()))
        return {name: {habit: entries[habit][name] for habit in habits} for name in names if name != "differences"}

    return turned(habits) | {"differences": turned({habit: one["differences"] for habit, one in habits.items()})}
