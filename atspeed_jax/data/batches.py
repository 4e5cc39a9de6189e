"""Batches of fixed shapes, left-padded with PAD, in a few length buckets; each is a pure function of data, config,
step.

A bucket is a number of items; a prompt of bucket b has P = `prompt_width(catalog, b)` tokens, a training row T =
`prompt_width(catalog, b - 1)` + L: both are 1 + L * b where items stand alone. Notation: B rows, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_rows, training_rows
from atspeed_jax.items.catalog import PAD, Catalog

_ENDLESS = 1 << 40  # batches; grain wants a length


@runtime_checkable
class Batches(Protocol):
    """Endless batches: batches[step] is the dict of arrays of a step, a function of `step` alone."""

    def __getitem__(self, step: int) -> dict: ...


@dataclass(frozen=True)
class BatchShape:
    """The shapes of batches.

    Attributes:
      history: newest items of a user that a row holds before the item to be predicted.
      buckets: lengths in items that rows are padded to, increasing; see `bucket_lengths`.
      batch_size: rows of a batch, B.
    """

    history: int
    buckets: tuple[int, ...]
    batch_size: int


def bucket_lengths(buckets: tuple[int, ...], longest: int) -> tuple[int, ...]:
    """Buckets in use when rows have 0..`longest` items: `buckets` below `longest`, then `longest` itself.

    Raises ValueError for buckets that are not positive and increasing, or a negative `longest`.
    """
    if not buckets or min(buckets) < 1 or list(buckets) != sorted(set(buckets)):
        raise ValueError(
            f"buckets are {buckets}; expected increasing numbers of items, 1 or more, such as (5, 10, 20)."
        )
    if longest < 0:
        raise ValueError(f"history is {longest}; it is a number of items, 0 or more.")
    return (*(bucket for bucket in buckets if bucket < longest), longest)


class _ShuffledBatches:
    """Endless batches of one bucket: a new permutation of the examples every epoch, joined, then cut into batches."""

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
        # Kept because a permutation costs as much as a batch; recomputed after a resume, to the same values.
        self._order = lru_cache(maxsize=4)(
            lambda epoch: np.random.default_rng((*seed, epoch)).permutation(len(examples))
        )

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, step: int) -> dict:
        epochs, places = np.divmod(step * self._batch_size + self._rows, len(self._examples))
        return self._collate(
            [self._examples[self._order(epoch)[place]] for epoch, place in zip(epochs.tolist(), places, strict=True)]
        )


def bucketed_batches(
    examples: Sequence,
    lengths: Sequence[int],
    *,
    buckets: tuple[int, ...],
    batch_size: int,
    seed: int,
    collate: Callable[[list, int], dict],
    rows: np.ndarray | None = None,
) -> Batches:
    """Endless shuffled batches, each from one bucket; buckets take turns in proportion to their number of examples.

    `batches[step]` depends on the arguments and `step` alone, so a run resumes by asking for its next step. Within a
    bucket every example comes once before any comes again; a bucket smaller than `batch_size` repeats inside a batch.

    Args:
      examples: anything indexable; numbers of rows are enough if `collate` holds the rows.
      lengths: of each example, in the unit of `buckets`.
      buckets: increasing; an example goes to the smallest bucket that holds it.
      batch_size: examples per batch, B.
      seed: of the order.
      collate: (list of B examples, bucket) -> dict of arrays.
      rows: places of a batch, 0..B - 1, that are read; None for all. One of several processes reads its own, and B
        stays what they read together.

    Raises:
      ValueError: no examples, one longer than every bucket, or a batch size below 1.
    """
    import grain  # of the extra `train`: an installed library that only recommends does without

    _check_batch_size(batch_size)
    if len(examples) != len(lengths):
        raise ValueError(f"{len(examples)} examples but {len(lengths)} lengths; give one length per example.")
    if list(buckets) != sorted(set(buckets)):
        raise ValueError(f"buckets are {buckets}; expected increasing lengths.")
    if not len(examples):
        raise ValueError("there are no examples to make batches of; the split is empty.")
    parts, weights = [], []
    for bucket, members in zip(buckets, _rows_by_bucket(lengths, buckets), strict=True):
        if len(members):
            chosen = [examples[member] for member in members.tolist()]
            source = _ShuffledBatches(
                chosen, batch_size, (seed, bucket), lambda batch, bucket=bucket: collate(batch, bucket), rows
            )
            parts.append(grain.MapDataset.source(source))
            weights.append(len(members))
    return grain.MapDataset.mix(parts, weights=weights)


def train_batches(dataset: Dataset, shape: BatchShape, *, seed: int, rows: np.ndarray | None = None) -> Batches:
    """Endless batches of training windows, see `bucketed_batches`.

    A user's train items are cut, newest first, into windows of at most `shape.history` + 1 items that do not overlap;
    with an instruction every item ends a window of its own. The largest bucket in use is `shape.history` + 1.

    Returns:
      dicts of "tokens" [B, T] int32, "valid" [B, T] bool (not PAD), "predict" [B, T] bool (what is to be predicted: all
      codes, or with an instruction those of the last item).
    """
    windows = _windows(dataset, shape.history)
    buckets = bucket_lengths(shape.buckets, shape.history + 1)
    lengths = np.array([len(window) for window in windows], np.int64)
    tables = _tables(training_rows, dataset.catalog, windows, lengths, buckets)
    codes = dataset.catalog.length * (lengths if dataset.catalog.instruction is None else np.ones_like(lengths))
    row_in_table = np.zeros(len(windows), np.int64)
    for own in _rows_by_bucket(lengths, buckets):
        row_in_table[own] = np.arange(len(own))

    def collate(chosen: list[int], bucket: int) -> dict:
        tokens = tables[bucket][row_in_table[chosen]]
        return {"tokens": tokens, "valid": tokens != PAD, "predict": _last(codes[chosen], tokens.shape[1])}

    order = {"batch_size": shape.batch_size, "seed": seed, "rows": rows}
    return bucketed_batches(range(len(windows)), lengths, buckets=buckets, collate=collate, **order)


def steps_per_epoch(dataset: Dataset, shape: BatchShape) -> int:
    """Batches of `train_batches` that hold as many rows as there are windows, rounded up."""
    bucket_lengths(shape.buckets, shape.history + 1)  # the same complaints as train_batches
    _check_batch_size(shape.batch_size)
    return -(-len(_windows(dataset, shape.history)) // shape.batch_size)


def valid_batches(dataset: Dataset, shape: BatchShape, *, users: int | None, seed: int) -> list[dict]:
    """All validation items of the chosen users once, each after what the user did before it.

    With history for `shape.history`, a row is a window of at most history + 1 items that ends in validation items. A
    user with many gets several rows, so that every item to be predicted has at least history // 2 items before it where
    the user has them; with an instruction every one of them has a row, with history items before it.

    Args:
      users: how many users with validation items, chosen by `seed`; None (or more than there are) for all.

    Returns:
      dicts as in `train_batches`, "predict" True on the validation items' codes only. Rows that fill the last batch of
      a bucket are all PAD.
    """
    history, batch_size = shape.history, shape.batch_size
    _check_batch_size(batch_size)
    with_items = np.array([user for user, items in enumerate(dataset.valid) if len(items)], np.int64)
    if users is not None and users < len(with_items):
        with_items = np.sort(np.random.default_rng(seed).choice(with_items, users, replace=False))
    windows, predicted = [], []
    block = max(1, (history + 1) // 2) if dataset.catalog.instruction is None else 1
    for user in with_items.tolist():
        known, new = dataset.train[user], dataset.valid[user]
        sequence = np.concatenate((known, new))
        for start in range(len(known), len(sequence), block):
            end = min(start + block, len(sequence))
            windows.append(sequence[max(0, end - history - 1) : end])
            predicted.append(end - start)
    buckets = bucket_lengths(shape.buckets, history + 1)
    lengths = np.array([len(window) for window in windows], np.int64)
    tables = _tables(training_rows, dataset.catalog, windows, lengths, buckets)

    batches = []
    for bucket, rows in zip(buckets, _rows_by_bucket(lengths, buckets), strict=True):
        tokens = _filled(tables[bucket], batch_size, PAD)
        codes = _filled(np.array(predicted, np.int64)[rows] * dataset.catalog.length, batch_size, 0)
        predict = _last(codes, tokens.shape[1])
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            batches.append({"tokens": tokens[part], "valid": tokens[part] != PAD, "predict": predict[part]})
    return batches


def prompt_batches(catalog: Catalog, histories: Sequence[np.ndarray], shape: BatchShape) -> list[dict]:
    """Every history once as a prompt, bucket after bucket, in the given order within a bucket.

    Returns:
      dicts of "row" [B] int32 (index into `histories`; -1 for a filler), "tokens" [B, P] int32, "valid" [B, P] bool;
      the largest bucket in use is `shape.history`. A filler is BOS alone, and so is an empty history without an
      instruction.
    """
    history, batch_size = shape.history, shape.batch_size
    _check_batch_size(batch_size)
    newest = [np.asarray(items)[max(0, len(items) - history) :] for items in histories]
    buckets = bucket_lengths(shape.buckets, history)
    lengths = np.array([len(items) for items in newest], np.int64)
    tables = _tables(prompt_rows, catalog, newest, lengths, buckets)
    batches = []
    for bucket, rows in zip(buckets, _rows_by_bucket(lengths, buckets), strict=True):
        tokens = _filled(tables[bucket], batch_size, PAD)
        tokens[len(rows) :, -1] = catalog.bos
        numbers = _filled(rows.astype(np.int32), batch_size, -1)
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            batches.append({"row": numbers[part], "tokens": tokens[part], "valid": tokens[part] != PAD})
    return batches


def _windows(dataset: Dataset, history: int) -> list[np.ndarray]:
    """Windows of at most history + 1 train items, `history` + 1 (with an instruction: one) apart; a user's last is full
    if there are enough items."""
    size = history + 1
    step = size if dataset.catalog.instruction is None else 1
    return [
        items[max(0, end - size) : end]
        for items in dataset.train
        for end in range((len(items) - 1) % step + 1, len(items) + 1, step)
    ]


def _rows_by_bucket(lengths: Sequence[int], buckets: tuple[int, ...]) -> list[np.ndarray]:
    """For each bucket the rows [n] that belong to it, ascending: those too long for the bucket before."""
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > buckets[-1]:
        raise ValueError(
            f"example {int(lengths.argmax())} has length {lengths.max()}, longer than the largest "
            f"of the buckets {buckets}."
        )
    place = np.searchsorted(buckets, lengths)
    return [np.flatnonzero(place == bucket) for bucket in range(len(buckets))]


def _tables(make: Callable, catalog: Catalog, sequences: Sequence[np.ndarray], lengths, buckets) -> dict:
    """bucket -> left-padded tokens of its rows as `make` gives them, so that a batch is one indexing."""
    return {
        bucket: make(catalog, [sequences[row] for row in rows.tolist()], bucket)
        for bucket, rows in zip(buckets, _rows_by_bucket(lengths, buckets), strict=True)
    }


def _last(counts: np.ndarray, width: int) -> np.ndarray:
    """[B, width] bool: the last counts[b] places of row b."""
    return np.arange(width) >= width - counts[:, None]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")


def _filled(rows: np.ndarray, batch_size: int, value: int) -> np.ndarray:
    """`rows` with rows of `value` added until batches are full."""
    missing = -len(rows) % batch_size
    return np.concatenate((rows, np.full((missing, *rows.shape[1:]), value, rows.dtype)))
