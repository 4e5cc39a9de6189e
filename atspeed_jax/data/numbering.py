"""Detects histories whose item numbers count from 1, where items count from 0.

The sequential files count from 1. Nothing in one history shows its numbering. But
whoever copies numbers from those files copies histories of the dataset, and these are
known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atspeed_jax.data.dataset import Dataset

RUN = 3  # items in a row: two users seldom share as many by chance
ENOUGH = 5  # runs that are found


def count_from_one(dataset: Dataset, histories: Sequence[np.ndarray]) -> bool:
    """Whether histories are those of the dataset's users with every item number one too
    high.

    Runs of RUN items are looked up in the dataset, as they are and with 1 subtracted.
    Histories of other users are found neither way.

    Args:
      dataset: whose users are compared with.
      histories: arrays of items in time order.
    """
    size = dataset.catalog.items + 1  # so that a number one too low makes no other run's code

    def runs(sequences: Sequence[np.ndarray]) -> np.ndarray:
        long = [np.asarray(items, np.int64) for items in sequences if len(items) >= RUN]
        return np.concatenate([np.zeros(0, np.int64), *((i[:-2] * size + i[1:-1]) * size + i[2:] for i in long)])

    known = runs([np.concatenate(rows) for rows in zip(dataset.train, dataset.valid, dataset.test, strict=True)])
    as_given = np.isin(runs(histories), known).sum()
    lowered = np.isin(runs([np.asarray(items) - 1 for items in histories]), known).sum()
    return bool(lowered >= ENOUGH and lowered > 2 * as_given)
