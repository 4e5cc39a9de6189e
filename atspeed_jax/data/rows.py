"""Held-out rows: questions that each have a history and one answer.

Data of leave-one-out or of one cut in time need no rows: what a user is asked about
comes behind everything before it. In other data a user is asked several times, each
time with a longer history. Such a question is a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of one split, in the order of their file.

    Attributes:
      users: [N] int64, the user of each row. A user may have several rows.
      histories: N int32 arrays of the items known before, oldest first; may be empty.
      targets: [N] int32, the item that came next.
    """

    users: np.ndarray
    histories: tuple[np.ndarray, ...]
    targets: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[tuple[int, Sequence[int], int]]) -> Rows:
        """Makes rows of (user, history, target)."""
        rows = list(rows)
        return cls(
            np.array([user for user, _, _ in rows], np.int64),
            tuple(np.array(history, np.int32) for _, history, _ in rows),
            np.array([target for _, _, target in rows], np.int32),
        )

    def __len__(self) -> int:
        return len(self.users)

    def targets_by_user(self, users: int) -> tuple[np.ndarray, ...]:
        """Returns the targets of users 0..users-1, an int32 array each, in the order of
        the rows.
        """
        order = np.argsort(self.users, kind="stable")
        counts = np.bincount(self.users, minlength=users)
        return tuple(np.split(self.targets[order], np.cumsum(counts)[:-1]))


def joined(rows: Iterable[tuple[Sequence[int], int]]) -> list[list[int]]:
    """Joins the training rows of one user to sequences, so that no item is trained on
    once per row that holds it.

    A row is joined to a sequence that its history ends, or that it repeats or extends.
    Its history may be cut to the newest items. Rows of a user whose history grows from
    row to row give one sequence.

    Args:
      rows: (history, target) in any order; in time order where histories are cut.

    Returns:
      sequences of items, the longest first. Rows that nothing joins give sequences of
      their items.
    """
    left = sorted(([*history, target] for history, target in rows), key=len)
    sequences: list[list[int]] = []
    while left:
        rest = [row for row in left if not any(_join(sequence, row) for sequence in reversed(sequences))]
        if len(rest) == len(left):  # nothing joins: the shortest row begins a sequence
            sequences.append(rest.pop(0))
        left = rest
    return sorted(sequences, key=len, reverse=True)


def _join(sequence: list[int], row: list[int]) -> bool:
    """Joins a row to a sequence in place; False if it does not belong there."""
    if len(row) > 1 and sequence[1 - len(row) :] == row[:-1]:
        sequence.append(row[-1])
        return True
    if row[: len(sequence)] == sequence:
        sequence[:] = row
        return True
    # A row that the sequence holds already is one that was given twice.
    return any(sequence[start : start + len(row)] == row for start in range(len(sequence) - len(row) + 1))
