"""Filters of raw interactions and their split by global time.

One date parts past and future for everybody, as in service: nothing a model trains on happened after anything it is
  tested on. (Leaving out
each user's last item instead lets it learn from other users' future.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Interactions:
    """A table of E events in any order.

    Attributes:
      users, items: [E] int, numbers from 0 on.
      ratings: [E] int or float.
      times: [E] int, seconds.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def where(self, keep: np.ndarray) -> Interactions:
        """The events that `keep` [E] (bool mask or row numbers) selects."""
        return Interactions(self.users[keep], self.items[keep], self.ratings[keep], self.times[keep])


def keep_rated(interactions: Interactions, minimum: float) -> Interactions:
    """Events rated `minimum` or better."""
    return interactions.where(interactions.ratings >= minimum)


def k_core(interactions: Interactions, k: int) -> Interactions:
    """The largest part in which every user and every item has at least `k` events; may be empty."""
    while len(interactions):
        enough = np.bincount(interactions.users)[interactions.users] >= k
        enough &= np.bincount(interactions.items)[interactions.items] >= k
        if enough.all():
            break
        interactions = interactions.where(enough)
    return interactions


def renumber(interactions: Interactions) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """Gives users and items new numbers without gaps, in the old order.

    Returns:
      the events, and the old number of every new user [users] and item [items].
    """
    old_users, users = np.unique(interactions.users, return_inverse=True)
    old_items, items = np.unique(interactions.items, return_inverse=True)
    return Interactions(users, items, interactions.ratings, interactions.times), old_users, old_items


def split_by_time(
    interactions: Interactions, valid_share: float, test_share: float
) -> tuple[Interactions, Interactions, Interactions]:
    """Cuts the events at two moments, the same for all users, into train, valid and test.

    The moments leave about `valid_share` and `test_share` of the events behind them; events of one moment stay
    together.

    Raises ValueError for shares that are not positive or leave nothing for train.
    """
    if not (valid_share > 0 and test_share > 0 and valid_share + test_share < 1):
        raise ValueError(
            f"valid_share {valid_share} and test_share {test_share}: both must be above 0, and their sum below 1."
        )
    times = np.sort(interactions.times)
    if not len(times):
        return interactions, interactions, interactions
    last = len(times) - 1
    valid_from = times[min(last, round(len(times) * (1 - valid_share - test_share)))]
    test_from = times[min(last, round(len(times) * (1 - test_share)))]
    train = interactions.where(interactions.times < valid_from)
    valid = interactions.where((interactions.times >= valid_from) & (interactions.times < test_from))
    return train, valid, interactions.where(interactions.times >= test_from)


def sequences(interactions: Interactions, users: int) -> tuple[np.ndarray, ...]:
    """Items of users 0..users-1 in time order, an int32 array each (events of one moment stay in the order of the
    table)."""
    order = np.lexsort((interactions.times, interactions.users))
    counts = np.bincount(interactions.users, minlength=users)
    return tuple(np.split(interactions.items[order].astype(np.int32), np.cumsum(counts)[:-1]))
