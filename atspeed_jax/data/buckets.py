"""Length buckets, and endless shuffled batches of examples of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol, cast, runtime_checkable

import numpy as np

_ENDLESS = 1 << 40  # batches; grain wants a length


@runtime_checkable
class Batches(Protocol):
    """Endless batches: batches[step] is the dict of arrays of a step, a function of
    `step` alone.
    """

    def __getitem__(self, index: int) -> dict: ...


def bucket_lengths(buckets: tuple[int, ...], longest: int) -> tuple[int, ...]:
    """The buckets in use when rows have 0..`longest` items: those below `longest`, then
    `longest`.

    Raises:
      ValueError: buckets that are not positive and increasing, or a negative `longest`.
    """
    if not buckets or min(buckets) < 1 or list(buckets) != sorted(set(buckets)):
        raise ValueError(
            f"buckets are {buckets}; expected increasing numbers of items, 1 or more, such as (5, 10, 20)."
        )
    if longest < 0:
        raise ValueError(f"history is {longest}; it is a number of items, 0 or more.")
    return (*(bucket for bucket in buckets if bucket < longest), longest)


class _ShuffledBatches:
    """Endless batches of one bucket: a new permutation of the examples every epoch, cut
    into batches across epochs.
    """

    def __init__(
        self,
        examples: Sequence,
        batch_size: int,
        seed: tuple[int, ...],
        collate: Callable[[list], dict],
        rows: np.ndarray | None,
    ):
        self._examples, self._batch_size, self._collate = examples, batch_size, collate
        self._rows = np.arange(batch_size) if rows is None else rows
        # Kept because a permutation costs as much as a batch; recomputed after a
        # resume, to the same values.
        self._order = lru_cache(maxsize=4)(
            lambda epoch: np.random.default_rng((*seed, epoch)).permutation(len(examples))
        )

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> dict:
        epochs, positions = np.divmod(index * self._batch_size + self._rows, len(self._examples))
        return self._collate(
            [
                self._examples[int(self._order(epoch)[position])]
                for epoch, position in zip(epochs.tolist(), positions, strict=True)
            ]
        )


def bucketed_batches(
    examples: Sequence,
    lengths: Sequence[int] | np.ndarray,
    *,
    buckets: tuple[int, ...],
    batch_size: int,
    seed: int,
    collate: Callable[[list, int], dict],
    rows: np.ndarray | None = None,
) -> Batches:
    """Endless shuffled batches, each of one bucket; buckets take turns in proportion to
    their size.

    `batches[step]` depends on the arguments and `step` alone, so a run resumes by
    asking for its next step. Within a bucket every example comes once before any comes
    again; a bucket smaller than `batch_size` repeats inside a batch.

    Args:
      examples: anything indexable; numbers of rows are enough if `collate` holds the
        rows.
      lengths: of each example, in the unit of `buckets`.
      buckets: increasing; an example goes to the smallest bucket that holds it.
      batch_size: examples per batch, B.
      seed: of the order.
      collate: (list of B examples, bucket) -> dict of arrays.
      rows: the rows of a batch that are read, of 0..B - 1; None for all. Each of
        several processes reads its share of the rows; B is the number of rows that all
        processes read together.

    Raises:
      ValueError: no examples, an example longer than every bucket, or a batch size
        below 1.
    """
    import grain  # of the extra `train`: an installed library that only recommends does without

    check_batch_size(batch_size)
    if len(examples) != len(lengths):
        raise ValueError(f"{len(examples)} examples but {len(lengths)} lengths; give one length per example.")
    if list(buckets) != sorted(set(buckets)):
        raise ValueError(f"buckets are {buckets}; expected increasing lengths.")
    if not len(examples):
        raise ValueError("no examples to make batches of; the split is empty.")
    parts, weights = [], []
    for bucket, members in zip(buckets, rows_by_bucket(lengths, buckets), strict=True):
        if len(members):
            chosen = [examples[member] for member in members.tolist()]
            source = _ShuffledBatches(
                chosen, batch_size, (seed, bucket), lambda batch, bucket=bucket: collate(batch, bucket), rows
            )
            parts.append(grain.MapDataset.source(source))
            weights.append(len(members))
    return cast(Batches, grain.MapDataset.mix(parts, weights=weights))  # which takes a slice too


def rows_by_bucket(lengths: Sequence[int] | np.ndarray, buckets: tuple[int, ...]) -> list[np.ndarray]:
    """For each bucket the rows [n] that belong to it, ascending: those too long for the
    bucket before.
    """
    sizes = np.asarray(lengths, np.int64)
    if len(sizes) and sizes.max() > buckets[-1]:
        raise ValueError(
            f"example {int(sizes.argmax())} has length {sizes.max()}, longer than the largest of the buckets {buckets}."
        )
    number = np.searchsorted(buckets, sizes)
    return [np.flatnonzero(number == bucket) for bucket in range(len(buckets))]


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError for a batch size below 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")
