"""Compares two decoders' lists: which are equal, and how far apart the others are."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import numpy as np

SCORE_TOLERANCE = 1e-4  # ALGORITHM.md section 5: "equal" is same items, same order, scores to this


class HasLists(Protocol):
    """Lists of K entries for N users, such as a `Result`.

    Attributes:
      tokens: [N, K, L], the codes of the ids.
      score: [N, K].
      valid: [N, K]; False marks an empty entry.
    """

    @property
    def tokens(self) -> np.ndarray | jax.Array: ...

    @property
    def score(self) -> np.ndarray | jax.Array: ...

    @property
    def valid(self) -> np.ndarray | jax.Array: ...


class Lists(NamedTuple):
    """A `HasLists` made of arrays."""

    tokens: np.ndarray
    score: np.ndarray
    valid: np.ndarray


def differing(a: HasLists, b: HasLists) -> np.ndarray:
    """Finds the users whose lists are not equal.

    Lists are equal if codes, order and empty entries are the same and scores differ by
    at most SCORE_TOLERANCE. Codes are compared, not numbers of ids: codes that no item
    has share one number. Codes and scores of empty entries do not count. A score that
    is not a number equals nothing.

    Returns:
      [N] bool.
    """
    close = np.abs(np.asarray(a.score) - np.asarray(b.score)) <= SCORE_TOLERANCE
    return _other_codes(a, b) | (np.asarray(a.valid) & ~close).any(1)


def _other_codes(a: HasLists, b: HasLists) -> np.ndarray:
    """[N] bool: lists that differ in codes, order or empty entries, whatever their
    scores.
    """
    valid = np.asarray(a.valid)
    codes = (np.asarray(a.tokens) != np.asarray(b.tokens)).any(-1)
    return ((valid != np.asarray(b.valid)) | valid & codes).any(1)


def overlap(a: HasLists, b: HasLists) -> np.ndarray:
    """[N] float: of the longer of a user's two lists, the share of ids that both lists
    hold; 1 if both are empty.
    """
    shared = (_position_in(a, b) >= 0).sum(1)
    longer = np.maximum(np.asarray(a.valid).sum(1), np.asarray(b.valid).sum(1))
    return np.where(longer, shared / np.maximum(longer, 1), 1.0)


def catalog_changes(before: np.ndarray, after: np.ndarray, trained: int) -> tuple[float, float]:
    """Measures what another catalog changes in lists of items.

    Args:
      before: [N, K] items by the trained catalog, -1 behind the last one.
      after: [N, K] items by the other catalog.
      trained: number of items of the trained catalog; greater numbers are new items.

    Returns:
      (share of the N lists that changed, share of the filled places of `after` that a
      new item takes).
    """
    changed = (before != after).any(1).mean()
    return float(changed), float((after >= trained).sum() / max(1, (after >= 0).sum()))


class Agreement(NamedTuple):
    """How far the lists of N users are from other lists of the same users.

    Attributes:
      same_list: [N] 1 where both lists hold the same codes in the same order, else 0.
      items_shared: [N], see `overlap`.
      score_gap, largest_gap: [N] mean and largest difference between the two scores of
        an id that both lists hold; 0 where they share none.
    """

    same_list: np.ndarray
    items_shared: np.ndarray
    score_gap: np.ndarray
    largest_gap: np.ndarray

    @property
    def figures(self) -> dict[str, float]:
        """Means over the users, and the largest gap of all users."""
        means = {name: float(getattr(self, name).mean()) for name in self._fields[:3]}
        return means | {"largest_gap": float(self.largest_gap.max())}


def agreement(a: HasLists, b: HasLists) -> Agreement:
    """Measures how far lists `a` are from lists `b` of the same users."""
    position = _position_in(a, b)
    other = np.take_along_axis(np.asarray(b.score, np.float64), np.maximum(position, 0), 1)
    gap = np.where(position >= 0, np.abs(np.asarray(a.score, np.float64) - other), 0.0)
    mean = gap.sum(1) / np.maximum((position >= 0).sum(1), 1)
    return Agreement((~_other_codes(a, b)).astype(float), overlap(a, b), mean, gap.max(1))


def _position_in(a: HasLists, b: HasLists) -> np.ndarray:
    """[N, K] position in the user's list b of each id of list a; -1 where b lacks the
    id.
    """
    first, second = (np.asarray(one.tokens) for one in (a, b))
    users, entries, length = second.shape
    rows = np.concatenate((first.reshape(-1, length), second.reshape(-1, length)))
    names = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)  # one number per code sequence
    count = int(names.max(initial=0)) + 1

    def keys(numbers, of):  # one number per user and code sequence, so that one sorted search finds all
        numbered = numbers.reshape(of.valid.shape) + count * np.arange(users, dtype=np.int64)[:, None]
        return np.where(np.asarray(of.valid), numbered, -1)

    mine, theirs = keys(names[: first[..., 0].size], a), keys(names[first[..., 0].size :], b).reshape(-1)
    order = np.argsort(theirs, kind="stable")
    found = order[np.minimum(np.searchsorted(theirs, mine, sorter=order), len(order) - 1)]
    return np.where((mine >= 0) & (theirs[found] == mine), found - entries * np.arange(users)[:, None], -1)
