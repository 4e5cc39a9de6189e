"""Users with items held out from training: whom a model is chosen by (valid) and measured on (test)."""

from __future__ import annotations

import dataclasses

import numpy as np

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutUsers:
    """N users with items in one split: users [N], their numbers; histories, the items known before that split; truths,
    their items in it. Both hold one array per user."""

    users: np.ndarray
    histories: list[np.ndarray]
    truths: list[np.ndarray]

    def batches(self, dataset: Dataset, shape: BatchShape) -> list[dict]:
        """The users' histories as prompts, see `data.batches.prompt_batches`."""
        return prompt_batches(dataset.catalog, self.histories, shape)

    def sample(self, count: int, seed: int) -> HeldOutUsers:
        """`count` users chosen by `seed` (all, if there are no more), in order of their numbers."""
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.users))[:count])
        return HeldOutUsers(self.users[rows], [self.histories[r] for r in rows], [self.truths[r] for r in rows])


def held_out_users(dataset: Dataset, split: str) -> HeldOutUsers:
    """Everyone with items in `split` ("valid" or "test"), with the items known before that split."""
    users = np.array([user for user, items in enumerate(getattr(dataset, split)) if len(items)], np.int64)
    histories = [dataset.history(user, split) for user in users.tolist()]
    return HeldOutUsers(users, histories, [getattr(dataset, split)[user] for user in users.tolist()])
