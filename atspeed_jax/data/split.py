"""Filters of raw events, and their split by global time.

One date parts past and future for everybody, as in service: nothing a model trains on
happened after anything it is tested on. (Leaving out each user's last item instead lets
a model learn from other users' future.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Events:
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

    def where(self, keep: np.ndarray) -> Events:
        """The events that `keep` [E] (bool mask or row numbers) selects."""
        return Events(self.users[keep], self.items[keep], self.ratings[keep], self.times[keep])


def keep_rated(events: Events, minimum: float) -> Events:
    """Events rated `minimum` or better."""
    return events.where(events.ratings >= minimum)


def k_core(events: Events, k: int) -> Events:
    """The largest part in which every user and every item has at least `k` events; may
    be empty.
    """
    while len(events):
        enough = np.bincount(events.users)[events.users] >= k
        enough &= np.bincount(events.items)[events.items] >= k
        if enough.all():
            break
        events = events.where(enough)
    return events


def renumber(events: Events) -> tuple[Events, np.ndarray, np.ndarray]:
    """Gives users and items new numbers without gaps, in the old order.

    Returns:
      The events, and the old number of every new user [users] and item [items].
    """
    old_users, users = np.unique(events.users, return_inverse=True)
    old_items, items = np.unique(events.items, return_inverse=True)
    return Events(users, items, events.ratings, events.times), old_users, old_items


def split_by_time(events: Events, valid_share: float, test_share: float) -> tuple[Events, Events, Events]:
    """Cuts the events at two moments, the same for all users, into train, valid and
    test.

    Args:
      events: to be cut; events of one moment stay together.
      valid_share, test_share: about these shares of the events lie in valid and in
        test.

    Raises:
      ValueError: shares that are not positive, or leave nothing for train.
    """
    if not (valid_share > 0 and test_share > 0 and valid_share + test_share < 1):
        raise ValueError(
            f"valid_share {valid_share} and test_share {test_share}: both must be above 0, and their sum below 1."
        )
    times = np.sort(events.times)
    if not len(times):
        return events, events, events
    last = len(times) - 1
    valid_from = times[min(last, round(len(times) * (1 - valid_share - test_share)))]
    test_from = times[min(last, round(len(times) * (1 - test_share)))]
    train = events.where(events.times < valid_from)
    valid = events.where((events.times >= valid_from) & (events.times < test_from))
    return train, valid, events.where(events.times >= test_from)


def sequences(events: Events, users: int) -> tuple[np.ndarray, ...]:
    """Items of users 0..users-1 in time order, an int32 array each.

    Events of one moment stay in the order of the table.
    """
    order = np.lexsort((events.times, events.users))
    counts = np.bincount(events.users, minlength=users)
    return tuple(np.split(events.items[order].astype(np.int32), np.cumsum(counts)[:-1]))
