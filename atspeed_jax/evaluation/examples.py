"""Example users of a report: what a person has chosen, gets, and chose afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import HeldOutUsers
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.serving.settings import Setting

if TYPE_CHECKING:
    from atspeed_jax.evaluation.evaluate import Evaluation

USERS = 5


def examples_of(evaluation: Evaluation) -> list[dict]:
    """A few test users with the lists of plain beam search (`examples`), decoded once
    and remembered.
    """

    def measure() -> dict:
        users, config = evaluation.everyone, evaluation.config
        setting = Setting.beam_search(config.list_size, evaluation.decode.score_norm)
        decoded = evaluation.decoded(setting, users)  # in memory, if quality was measured just now
        rows = example_rows(users, USERS, config.seed + 3)
        return {"users": examples(evaluation.dataset, users, decoded.ids, decoded.score, rows)}

    return evaluation.store.remembered("examples", measure, {"users": list})["users"]


def example_rows(users: HeldOutUsers, count: int, seed: int) -> list[int]:
    """Draws users that have a history.

    Returns:
      at most `count` rows of `users`, ascending.
    """
    rows = np.array([row for row, history in enumerate(users.histories) if len(history)], np.int64)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:count]).tolist()


def examples(
    dataset: Dataset, users: HeldOutUsers, ids: np.ndarray, scores: np.ndarray, rows: Sequence[int]
) -> list[dict]:
    """Describes some users and their lists.

    Args:
      dataset: of the items.
      users: N users.
      ids: [N, K] rows of the distinct ids, best first; below 0 for an empty entry.
      scores: [N, K].
      rows: of the users that are described.

    Returns:
      A dict per user: {"user", "history": items, "list": items, "later": items}, oldest
      or best item first. An item is {"item", "codes"}. Of "list" it also has "score",
      and "found" if the user chose it later. An id that several items share stands for
      the most popular one that the user chose later, else for the most popular one.
    """
    catalog = dataset.catalog
    items_sorted, offsets = catalog.items_by_id(dataset.popularity)
    found = []
    for row in rows:
        truths = users.truths[row]
        listed = []
        for number, score in zip(ids[row].tolist(), scores[row].tolist(), strict=True):
            if number < 0:
                continue
            alike = items_sorted[offsets[number] : offsets[number + 1]]
            chosen = alike[np.isin(alike, truths)]
            item = _item(catalog, int((chosen if len(chosen) else alike)[0]))
            listed.append(item | {"score": score, "found": bool(len(chosen))})
        found.append(
            {
                "user": int(users.users[row]),
                "history": [_item(catalog, item) for item in users.histories[row].tolist()],
                "list": listed,
                "later": [_item(catalog, item) for item in truths.tolist()],
            }
        )
    return found


def _item(catalog: Catalog, item: int) -> dict:
    return {"item": item, "codes": catalog.codes[item].tolist()}
