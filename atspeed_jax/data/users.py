"""Users with items held out from training, or their rows (`data.rows`).

A model is chosen by the items of the split "valid", and measured on those of "test".
"""

from __future__ import annotations

import dataclasses

import numpy as np

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutUsers:
    """N users with items in one split, or N rows of users.

    Attributes:
      users: [N] int64, their numbers. The number of a user with several rows repeats.
      histories: N arrays of the items known before that split, oldest first.
      truths: N arrays of the items in the split.
    """

    users: np.ndarray
    histories: list[np.ndarray]
    truths: list[np.ndarray]

    @property
    def groups(self) -> np.ndarray | None:
        """[N] the user of each entry; None if no user has two entries."""
        return None if len(np.unique(self.users)) == len(self.users) else self.users

    def batches(self, dataset: Dataset, shape: BatchShape) -> list[dict]:
        """The users' histories as prompts, see `data.batches.prompt_batches`."""
        return prompt_batches(dataset.catalog, self.histories, shape)

    def sample(self, count: int, seed: int) -> HeldOutUsers:
        """Draws `count` users by `seed`, or takes all if N is not larger; in order of
        their numbers.
        """
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.users))[:count])
        return HeldOutUsers(self.users[rows], [self.histories[r] for r in rows], [self.truths[r] for r in rows])


def held_out_users(dataset: Dataset, split: str) -> HeldOutUsers:
    """Everyone with items in a split, with the items known before that split.

    Args:
      dataset: of the users.
      split: "valid" or "test".

    Returns:
      one entry per user; one entry per row if the dataset has rows.
    """
    if rows := dataset.rows.get(split):
        return HeldOutUsers(rows.users, list(rows.histories), list(rows.targets[:, None]))
    users = np.array([user for user, items in enumerate(getattr(dataset, split)) if len(items)], np.int64)
    histories = [dataset.history(user, split) for user in users.tolist()]
    return HeldOutUsers(users, histories, [getattr(dataset, split)[user] for user in users.tolist()])
