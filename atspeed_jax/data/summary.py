"""What a dataset holds, and what looks wrong in it, in lines to be read before
training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.sources import SPLITS

FEW = 0.05  # of the users: fewer with items in a split are too few to train, choose or measure on
MANY = 0.5  # of the users: a habit that more of them share is one of the files, not of the users
LARGE = 20  # items of one id, which fill a whole list by themselves


@dataclass(frozen=True)
class DataSummary:
    """Counts of a dataset.

    Attributes:
      users_with, interactions: of each split, in the order of SPLITS.
      train_only: users with train items and none to be asked about.
      trained_items: items that train holds.
      shared_ids: ids that several items carry.
      colliding_items: items that share their id.
      largest: most items of one id.
      codes_in_use, level_sizes: per level.
      untrained_share: share of the test interactions whose item train does not hold.
      warnings: sentences that say what looks wrong, and what to do.
    """

    name: str
    users: int
    users_with: tuple[int, ...]
    interactions: tuple[int, ...]
    train_only: int
    items: int
    trained_items: int
    ids: int
    shared_ids: int
    colliding_items: int
    largest: int
    codes_in_use: tuple[int, ...]
    level_sizes: tuple[int, ...]
    untrained_share: float
    warnings: tuple[str, ...]

    def text(self) -> str:
        """The summary as lines for a terminal."""

        def by_split(counts) -> str:
            return ", ".join(f"{count:,} {split}" for split, count in zip(SPLITS, counts, strict=True))

        levels = zip(self.codes_in_use, self.level_sizes, strict=True)
        rows = {
            "users": f"{self.users:,} (with items: {by_split(self.users_with)})",
            "in train alone": f"{self.train_only:,} users, who are never asked about",
            "interactions": by_split(self.interactions),
            "items": f"{self.items:,} ({self.trained_items:,} in train)",
            "ids": f"{self.ids:,} of {len(self.level_sizes)} codes; {self.shared_ids:,} ids are shared, by "
            f"{self.colliding_items:,} items, at most {self.largest} of one id",
            "codes in use": ", ".join(f"{used} of {size}" for used, size in levels),
            "never trained on": f"{self.untrained_share:.1%} of the test interactions",
            "item numbers": f"0 to {self.items - 1}, also in the files of launch.recommend in the checkout; "
            "sequential_*.txt count from 1 (item 1 there is item 0 here)",
        }
        width = max(map(len, rows))
        lines = [f"data of {self.name}", *(f"  {name.ljust(width)}  {value}" for name, value in rows.items())]
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


def summarize(dataset: Dataset) -> DataSummary:
    """Counts a dataset, and looks for what is often wrong in one."""
    catalog = dataset.catalog
    parts = {split: getattr(dataset, split) for split in SPLITS}
    users_with = {split: sum(len(items) > 0 for items in rows) for split, rows in parts.items()}
    test = np.concatenate((*dataset.test, np.zeros(0, np.int32)))
    sizes = [len(group) for group in catalog.collisions]
    used = tuple(len(np.unique(catalog.ids[:, level])) for level in range(catalog.length))
    return DataSummary(
        name=dataset.name,
        users=dataset.users,
        users_with=tuple(users_with.values()),
        interactions=tuple(sum(map(len, rows)) for rows in parts.values()),
        train_only=sum(
            1 for one in zip(*parts.values(), strict=True) if len(one[0]) and not (len(one[1]) + len(one[2]))
        ),
        items=catalog.items,
        trained_items=int((dataset.popularity > 0).sum()),
        ids=len(catalog.ids),
        shared_ids=len(sizes),
        colliding_items=sum(sizes),
        largest=max(sizes, default=1),
        codes_in_use=used,
        level_sizes=catalog.level_sizes,
        untrained_share=float((dataset.popularity[test] == 0).mean()) if len(test) else 0.0,
        warnings=(
            *_odd_splits(users_with, dataset.users),
            *_repeated_histories(dataset),
            *_odd_levels(catalog.ids, used),
            *_large_groups(sizes),
        ),
    )


def _odd_splits(users_with: dict[str, int], users: int) -> list[str]:
    """Warnings of splits that hold items of few users."""
    return [
        f"{count:,} of {users:,} users have {split} items, all others have none: are the data of {split} whole?"
        for split, count in users_with.items()
        if count < FEW * users
    ]


def _repeated_histories(dataset: Dataset) -> list[str]:
    """Warnings of lines that begin with what came before them, where a line should hold
    only what came next.
    """
    warnings = []
    for split in () if dataset.rows else ("valid", "test"):
        asked = [user for user in range(dataset.users) if len(getattr(dataset, split)[user])]
        histories = [dataset.history(user, split) for user in asked]
        pairs = [
            (history, getattr(dataset, split)[user])
            for user, history in zip(asked, histories, strict=True)
            if len(history) > 1
        ]
        repeated = sum(_goes_on_from_before(*pair) for pair in pairs)
        if pairs and repeated > MANY * len(pairs):
            warnings.append(
                f"the {split} items of {repeated:,} of {len(pairs):,} users begin with the end of their own history: "
                f"sequential_{split}.txt must hold only what comes after the lines of the files before it"
            )
    return warnings


def _goes_on_from_before(history: np.ndarray, line: np.ndarray) -> bool:
    """Whether `line` begins with the last two or more items of `history`."""
    for start in np.flatnonzero(history[:-1] == line[0]):
        tail = history[start:]
        if np.array_equal(tail, line[: len(tail)]):
            return True
    return False


def _odd_levels(ids: np.ndarray, used: tuple[int, ...]) -> list[str]:
    """Warnings of levels with one code, or whose codes are numbered from above 0."""
    warnings = []
    for level, count in enumerate(used):
        lowest = int(ids[:, level].min())
        if count == 1 and len(ids) > 1:
            warnings.append(
                f"all items have code {lowest} at level {level + 1}: the level tells nothing and costs every list a "
                "call; leave it out of the index"
            )
        elif lowest >= count:
            warnings.append(
                f"the {count} codes of level {level + 1} are numbered from {lowest}: all numbers below get rows of the "
                "embedding that nothing uses; number each level from 0"
            )
    return warnings


def _large_groups(sizes: list[int]) -> list[str]:
    """Warnings of ids that many items share. sizes: items of each shared id."""
    if not sizes or max(sizes) <= LARGE:
        return []
    return [f"{max(sizes)} items share one id: it fills a list of {LARGE} alone; were they made of empty descriptions?"]
