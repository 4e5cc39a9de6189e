"""Whether two decoders gave the same lists, and how far apart lists are that differ."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

SCORE_TOLERANCE = 1e-4  # ALGORITHM.md section 5: "equal" is same items, same order, scores to this


class HasLists(Protocol):
    """K places for each of N users: tokens [N, K, L] of ids, score [N, K], valid [N,
    K]; `Result` is one.
    """

    tokens: np.ndarray
    score: np.ndarray
    valid: np.ndarray


class Lists(NamedTuple):
    """A `HasLists` of arrays."""

    tokens: np.ndarray
    score: np.ndarray
    valid: np.ndarray


def differing(a: HasLists, b: HasLists) -> np.ndarray:
    """[N] bool: users whose lists are not equal, in codes, order, invalid places, or
    scores by more than SCORE_TOLERANCE.

    Codes are compared, not numbers of ids: codes that no item has share one number.
    Invalid places have neither codes nor scores. A score that is not a number equals
    nothing.
    """
    close = np.abs(np.asarray(a.score) - np.asarray(b.score)) <= SCORE_TOLERANCE
    return _other_codes(a, b) | (np.asarray(a.valid) & ~close).any(1)


def _other_codes(a: HasLists, b: HasLists) -> np.ndarray:
    """[N] bool: lists that differ in codes, order or invalid places, whatever their
    scores.
    """
    valid = np.asarray(a.valid)
    codes = (np.asarray(a.tokens) != np.asarray(b.tokens)).any(-1)
    return ((valid != np.asarray(b.valid)) | valid & codes).any(1)


def overlap(a: HasLists, b: HasLists) -> np.ndarray:
    """[N] share of a user's ids that are in both lists, of the longer list's length; 1
    if both are empty.
    """
    shared = (_position_in(a, b) >= 0).sum(1)
    longer = np.maximum(np.asarray(a.valid).sum(1), np.asarray(b.valid).sum(1))
    return np.where(longer, shared / np.maximum(longer, 1), 1.0)


class Agreement(NamedTuple):
    """How far the lists of N users are from others, per user: same_list [N] 0 or 1, the
    same codes in the same order; items_shared [N], see `overlap`; score_gap and
    largest_gap [N], mean and largest difference of the scores of ids in both lists, 0
    where there are none.
    """

    same_list: np.ndarray
    items_shared: np.ndarray
    score_gap: np.ndarray
    largest_gap: np.ndarray

    @property
    def figures(self) -> dict[str, float]:
        """Means over the users, and the largest gap of all."""
        means = {name: float(getattr(self, name).mean()) for name in self._fields[:3]}
        return means | {"largest_gap": float(self.largest_gap.max())}


def agreement(a: HasLists, b: HasLists) -> Agreement:
    """How far lists `a` are from lists `b` of the same users."""
    position = _position_in(a, b)
    other = np.take_along_axis(np.asarray(b.score, np.float64), np.maximum(position, 0), 1)
    gap = np.where(position >= 0, np.abs(np.asarray(a.score, np.float64) - other), 0.0)
    mean = gap.sum(1) / np.maximum((position >= 0).sum(1), 1)
    return Agreement((~_other_codes(a, b)).astype(float), overlap(a, b), mean, gap.max(1))


def _position_in(a: HasLists, b: HasLists) -> np.ndarray:
    """[N, K] place in the user's list b of each id of list a, -1 where it is not there."""
    first, second = (np.asarray(one.tokens) for one in (a, b))
    users, places, length = second.shape
    rows = np.concatenate((first.reshape(-1, length), second.reshape(-1, length)))
    names = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)  # one number per code sequence
    count = int(names.max(initial=0)) + 1

    def keys(numbers, of):  # one number per user and code sequence, so that one sorted search finds all
        own = numbers.reshape(of.valid.shape) + count * np.arange(users, dtype=np.int64)[:, None]
        return np.where(np.asarray(of.valid), own, -1)

    mine, theirs = keys(names[: first[..., 0].size], a), keys(names[first[..., 0].size :], b).reshape(-1)
    order = np.argsort(theirs, kind="stable")
    found = order[np.minimum(np.searchsorted(theirs, mine, sorter=order), len(order) - 1)]
    return np.where((mine >= 0) & (theirs[found] == mine), found - places * np.arange(users)[:, None], -1)
