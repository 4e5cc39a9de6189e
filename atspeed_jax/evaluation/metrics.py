"""List quality per user, and how sure its mean is."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from atspeed_jax.items.filters import first_unknown

_DRAWS_AT_ONCE = 1 << 22  # resampled values held in memory at a time


class MetricError(ValueError):
    """Lists, truths or values that cannot be measured."""


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def recall_at(lists: np.ndarray, truths: Sequence[np.ndarray], k: int, *, items: int) -> np.ndarray:
    """Recall: the share of a user's true items among the first k of the list.

    Ids, numbered likewise, may stand for items in lists and truths alike.

    Args:
      lists: [N, K] items, best first; -1 is an empty entry.
      truths: N arrays of items; repeats count once.
      k: entries of a list that count.
      items: size of the catalog, whose items are 0..items-1.

    Returns:
      [N] float64.

    Raises:
      MetricError: k beyond K, a user without true items, an item twice in a list, or an
        item that the catalog does not have; it names user and item.
    """
    found, truth_sizes = _hits(lists, truths, k, items)
    return found.sum(axis=1) / truth_sizes


def ndcg_at(lists: np.ndarray, truths: Sequence[np.ndarray], k: int, *, items: int) -> np.ndarray:
    """NDCG: the discounted gain of the first k entries, divided by that of an ideal
    list.

    A hit gains 1 / log2(1 + rank). The ideal list has the true items on its first
    min(k, number of true items) ranks (Jarvelin and Kekalainen 2002, binary relevance).
    Arguments, result and errors are those of `recall_at`.
    """
    found, truth_sizes = _hits(lists, truths, k, items)
    gain = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gain)[np.minimum(truth_sizes, k) - 1]
    return found @ gain / ideal


def hits(lists: np.ndarray, truths: Sequence[np.ndarray], *, items: int) -> int:
    """Counts the distinct true items in the whole lists of all users. Arguments and
    errors are those of `recall_at`.
    """
    return int(_hits(lists, truths, np.shape(lists)[1], items)[0].sum())


def measure_lists(
    lists: np.ndarray, truths: Sequence[np.ndarray], ks: Sequence[int], *, items: int
) -> dict[str, np.ndarray]:
    """Recall and NDCG at every k, per user.

    Args:
      lists, truths, items: see `recall_at`.
      ks: each k.

    Returns:
      {"recall@10": [N], ...}.

    Raises:
      MetricError: as `recall_at`.
    """
    measures: dict[str, Callable] = {"recall": recall_at, "ndcg": ndcg_at}
    return {f"{name}@{k}": measure(lists, truths, k, items=items) for name, measure in measures.items() for k in ks}


def _hits(lists: np.ndarray, truths: Sequence[np.ndarray], k: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the first k entries hold a true item, [N, k] bool; and the number of
    distinct true items, [N].
    """
    lists = np.asarray(lists)
    if lists.ndim != 2 or len(lists) != len(truths):
        raise MetricError(f"lists has shape {lists.shape}, expected [{len(truths)}, K]: one list for each truth")
    if not 1 <= k <= lists.shape[1]:
        raise MetricError(f"k = {k}, expected 1 to {lists.shape[1]}, the length of the lists")
    sizes = np.array([len(truth) for truth in truths], np.int64)
    if not sizes.all():
        raise MetricError(f"user {int(np.argmin(sizes))} of {len(sizes)} has no true items; measure only users who do")
    filled = lists != -1
    _check_known(truths, items, "true item")
    _check_known([row[places] for row, places in zip(lists, filled, strict=True)], items, "listed item")
    lists, filled = lists[:, :k].astype(np.int64), filled[:, :k]
    truth_items = np.concatenate(truths).astype(np.int64) if len(truths) else np.empty(0, np.int64)

    # One number per (user, item), so that membership is a single sorted search over all
    # users.
    users = np.arange(len(lists), dtype=np.int64)
    distinct = np.unique(np.repeat(users, sizes) * items + truth_items)
    keys = users[:, None] * items + lists
    _check_no_repeats(np.sort(np.where(filled, keys, -1 - np.arange(k)), axis=1), items)
    return np.isin(keys, distinct) & filled, np.bincount(distinct // items, minlength=len(lists))


def _check_known(lists: Sequence[np.ndarray], items: int, what: str) -> None:
    """Raises MetricError for an item that the catalog does not have. what: the item,
    in the message.
    """
    if (stray := first_unknown(lists, items)) is not None:
        user, item = stray
        raise MetricError(
            f"user {user} of {len(lists)}: {what} {item}; the catalog has items 0 to {items - 1}, so leave it out"
        )


def _check_no_repeats(sorted_keys: np.ndarray, items: int) -> None:
    """Raises MetricError for an item that stands twice in a list. sorted_keys: [N, k],
    equal where an item repeats.
    """
    repeated = sorted_keys[:, 1:] == sorted_keys[:, :-1]
    if repeated.any():
        user, rank = np.argwhere(repeated)[0]
        item = sorted_keys[user, rank] % items
        raise MetricError(f"the list of user {user} holds item {item} twice; an item may stand in a list only once")


def bootstrap_interval(values: np.ndarray, *, samples: int, seed: int, groups: np.ndarray | None = None) -> Interval:
    """The mean of some values and its 95 % percentile interval.

    The users are resampled with replacement (Efron and Tibshirani 1993, section 13.3).
    The same arguments give the same interval. Values of one user are not independent:
    where a user has several, `groups` makes the interval one over users.

    Args:
      values: [N], one per user, or one per row of users.
      samples: resamplings.
      seed: of the resampling.
      groups: [N], the user of each value, who is resampled with all values; None if each
        value is that of another user.

    Raises:
      MetricError: values that are empty, not finite or not one-dimensional; fewer than
        one sample.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise MetricError(f"values has shape {values.shape}, expected [N] with at least one user")
    if not (finite := np.isfinite(values)).all():
        raise MetricError(f"value {values[~finite][0]} of user {int(np.argmin(finite))}: not finite")
    if samples < 1:
        raise MetricError(f"samples = {samples}, expected at least 1")
    rng = np.random.default_rng(seed)
    totals, counts = values, None
    if groups is not None:
        _, members = np.unique(groups, return_inverse=True)
        totals, counts = np.bincount(members, values), np.bincount(members)
    block = max(1, _DRAWS_AT_ONCE // len(totals))
    drawn = [
        rng.integers(len(totals), size=(min(block, samples - start), len(totals))) for start in range(0, samples, block)
    ]
    means = np.concatenate(
        [totals[rows].mean(axis=1) if counts is None else totals[rows].sum(1) / counts[rows].sum(1) for rows in drawn]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, samples: int, seed: int, groups: np.ndarray | None = None
) -> Interval:
    """The mean of a - b over the same users, and its 95 % interval, users resampled in
    pairs.

    Args:
      a, b: [N] each.
      samples, seed, groups: see `bootstrap_interval`.

    Raises:
      MetricError: shapes that differ, and as `bootstrap_interval`.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise MetricError(f"a has shape {a.shape} and b {b.shape}; a paired difference needs the same users in both")
    return bootstrap_interval(a - b, samples=samples, seed=seed, groups=groups)


def summarize(measures: Mapping[str, np.ndarray], *, samples: int, seed: int, groups: np.ndarray | None = None) -> dict:
    """A quality entry of the report.

    Args:
      measures: values [N] by name, as `measure_lists` gives them.
      samples, seed, groups: see `bootstrap_interval`.

    Returns:
      {"recall@10": mean, ..., "intervals": {"recall@10": [low, high], ...}, "users":
      N}.

    Raises:
      MetricError: as `bootstrap_interval`.
    """
    how: dict = {"samples": samples, "seed": seed, "groups": groups}
    intervals = {name: bootstrap_interval(values, **how) for name, values in measures.items()}
    return _entry(intervals, measures)


def compare(
    a: Mapping[str, np.ndarray],
    b: Mapping[str, np.ndarray],
    *,
    samples: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> dict:
    """A difference entry of the report: paired differences a - b of every measure of a.

    Args:
      a, b: values [N] by name, of the same users.
      samples, seed, groups: see `bootstrap_interval`.

    Returns:
      The form of `summarize`.

    Raises:
      MetricError: b lacks a measure of a, and as `paired_difference`.
    """
    if missing := sorted(set(a) - set(b)):
        raise MetricError(f"nothing to compare {', '.join(missing)} with; measure both sides at the same k")
    how: dict = {"samples": samples, "seed": seed, "groups": groups}
    intervals = {name: paired_difference(a[name], b[name], **how) for name in a}
    return _entry(intervals, a)


def _entry(intervals: Mapping[str, Interval], measures: Mapping[str, np.ndarray]) -> dict:
    """Means, intervals and number of users as an entry of the report."""
    means = {name: interval.mean for name, interval in intervals.items()}
    bounds = {name: [interval.low, interval.high] for name, interval in intervals.items()}
    return {**means, "intervals": bounds, "users": len(next(iter(measures.values())))}
