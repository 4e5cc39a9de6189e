"""Batches of fixed shapes, left-padded with PAD, in a few length buckets.

Each batch is a pure function of data, config and step. A bucket is a number of items. A
prompt of bucket b has P = `prompt_width(catalog, b)` tokens, a training row T =
`prompt_width(catalog, b - 1)` + L; both are 1 + L * b where items stand alone.
Notation: B rows, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from atspeed_jax.data.buckets import Batches, bucket_lengths, bucketed_batches, check_batch_size, rows_by_bucket
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_rows, training_rows
from atspeed_jax.items.catalog import PAD, Catalog


@dataclass(frozen=True)
class BatchShape:
    """The shapes of batches.

    Attributes:
      history: newest items of a user that a row holds before the item to be predicted.
      buckets: lengths in items that rows are padded to, increasing; see
        `bucket_lengths`.
      batch_size: rows of a batch, B.
    """

    history: int
    buckets: tuple[int, ...]
    batch_size: int


def train_batches(dataset: Dataset, shape: BatchShape, *, seed: int, rows: np.ndarray | None = None) -> Batches:
    """Endless batches of training windows, see `bucketed_batches`.

    A user's train items are cut, newest first, into windows of at most history + 1
    items that do not overlap. With an instruction every item ends a window. The largest
    bucket in use is history + 1.

    Args:
      dataset: its train items are read.
      shape: of the batches; its history is the one above.
      seed: of the order.
      rows: see `bucketed_batches`.

    Returns:
      Dicts of "tokens" [B, T] int32; "valid" [B, T] bool, which tokens are not PAD; and
      "predict" [B, T] bool, the tokens to be predicted: all codes, or with an
      instruction those of the last item.
    """
    windows = _windows(dataset, shape.history)
    buckets = bucket_lengths(shape.buckets, shape.history + 1)
    lengths = np.array([len(window) for window in windows], np.int64)
    tables = _tables(training_rows, dataset.catalog, windows, lengths, buckets)
    codes = dataset.catalog.length * (lengths if dataset.catalog.instruction is None else np.ones_like(lengths))
    row_in_table = np.zeros(len(windows), np.int64)
    for alike in rows_by_bucket(lengths, buckets):
        row_in_table[alike] = np.arange(len(alike))

    def collate(chosen: list[int], bucket: int) -> dict:
        tokens = tables[bucket][row_in_table[chosen]]
        return {"tokens": tokens, "valid": tokens != PAD, "predict": _predicted(codes[chosen], tokens)}

    order = {"batch_size": shape.batch_size, "seed": seed, "rows": rows}
    return bucketed_batches(range(len(windows)), lengths, buckets=buckets, collate=collate, **order)


def steps_per_epoch(dataset: Dataset, shape: BatchShape) -> int:
    """The number of batches of `train_batches` that hold as many rows as the dataset
    has windows, rounded up.

    Raises:
      ValueError: as `train_batches`.
    """
    bucket_lengths(shape.buckets, shape.history + 1)  # the same complaints as train_batches
    check_batch_size(shape.batch_size)
    return -(-len(_windows(dataset, shape.history)) // shape.batch_size)


def valid_batches(dataset: Dataset, shape: BatchShape, *, users: int | None, seed: int) -> list[dict]:
    """All validation items of some users once, each after what the user did before it.

    With history for `shape.history`, a row is a window of at most history + 1 items
    that ends in validation items. A user with many validation items gets several rows:
    every item to be predicted has at least history // 2 items before it, where the user
    has them. With an instruction every item has a row, with history items before it. So
    has every row of a dataset with rows, with the history of that row.

    Args:
      dataset: its train and validation items are read.
      shape: of the batches.
      users: how many users with validation items, or rows of a dataset with rows,
        chosen by `seed`; None (or more than the dataset has) for all.
      seed: of the choice.

    Returns:
      Dicts as in `train_batches`; "predict" is True on the validation items' codes
      only. Rows that fill the last batch of a bucket are all PAD.
    """
    history, batch_size = shape.history, shape.batch_size
    check_batch_size(batch_size)
    windows, predicted = (_row_windows if dataset.rows else _valid_windows)(dataset, history, users, seed)
    buckets = bucket_lengths(shape.buckets, history + 1)
    lengths = np.array([len(window) for window in windows], np.int64)
    tables = _tables(training_rows, dataset.catalog, windows, lengths, buckets)

    batches = []
    for bucket, rows in zip(buckets, rows_by_bucket(lengths, buckets), strict=True):
        tokens = _filled(tables[bucket], batch_size, PAD)
        codes = _filled(np.array(predicted, np.int64)[rows] * dataset.catalog.length, batch_size, 0)
        predict = _predicted(codes, tokens)
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            batches.append({"tokens": tokens[part], "valid": tokens[part] != PAD, "predict": predict[part]})
    return batches


def prompt_batches(catalog: Catalog, histories: Sequence[np.ndarray], shape: BatchShape) -> list[dict]:
    """Every history once as a prompt, bucket after bucket, in the given order within a
    bucket.

    Args:
      catalog: of the items.
      histories: N arrays of items, oldest first.
      shape: of the batches; the largest bucket in use is `shape.history`.

    Returns:
      Dicts of "row" [B] int32, the index into `histories`, -1 for a filler; "tokens"
      [B, P] int32; "valid" [B, P] bool. A filler is the prompt of an empty history:
      BOS alone without an instruction.
    """
    history, batch_size = shape.history, shape.batch_size
    check_batch_size(batch_size)
    newest = [np.asarray(items)[max(0, len(items) - history) :] for items in histories]
    buckets = bucket_lengths(shape.buckets, history)
    lengths = np.array([len(items) for items in newest], np.int64)
    tables = _tables(prompt_rows, catalog, newest, lengths, buckets)
    batches = []
    for bucket, rows in zip(buckets, rows_by_bucket(lengths, buckets), strict=True):
        tokens = _filled(tables[bucket], batch_size, PAD)
        tokens[len(rows) :] = prompt_rows(catalog, [[]], bucket)
        numbers = _filled(rows.astype(np.int32), batch_size, -1)
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            batches.append({"row": numbers[part], "tokens": tokens[part], "valid": tokens[part] != PAD})
    return batches


def _windows(dataset: Dataset, history: int) -> list[np.ndarray]:
    """Windows of at most history + 1 train items that begin history + 1 items apart,
    with an instruction one item apart; a user's last window is full if the user has
    enough items.
    """
    size = history + 1
    step = size if dataset.catalog.instruction is None else 1
    return [
        items[max(0, end - size) : end]
        for items in dataset.train
        for end in range((len(items) - 1) % step + 1, len(items) + 1, step)
    ]


def _valid_windows(dataset: Dataset, history: int, users: int | None, seed: int) -> tuple[list[np.ndarray], list[int]]:
    """The windows of `valid_batches`, and how many of their last items are predicted."""
    with_items = _choice(
        np.array([user for user, items in enumerate(dataset.valid) if len(items)], np.int64), users, seed
    )
    windows, predicted = [], []
    block = max(1, (history + 1) // 2) if dataset.catalog.instruction is None else 1
    for user in with_items.tolist():
        known, new = dataset.train[user], dataset.valid[user]
        sequence = np.concatenate((known, new))
        for start in range(len(known), len(sequence), block):
            end = min(start + block, len(sequence))
            windows.append(sequence[max(0, end - history - 1) : end])
            predicted.append(end - start)
    return windows, predicted


def _row_windows(dataset: Dataset, history: int, users: int | None, seed: int) -> tuple[list[np.ndarray], list[int]]:
    """As `_valid_windows`, where users are asked once per row: a window per row."""
    rows = dataset.rows["valid"]
    chosen = _choice(np.arange(len(rows)), users, seed).tolist()
    windows = [np.append(rows.histories[row], rows.targets[row])[-(history + 1) :] for row in chosen]
    return windows, [1] * len(windows)


def _choice(rows: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """`count` of the rows in order, chosen by `seed`; all if they are no more."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _tables(make: Callable, catalog: Catalog, sequences: Sequence[np.ndarray], lengths, buckets) -> dict:
    """bucket -> left-padded tokens of its rows as `make` gives them, so that a batch is
    one indexing.
    """
    return {
        bucket: make(catalog, [sequences[row] for row in rows.tolist()], bucket)
        for bucket, rows in zip(buckets, rows_by_bucket(lengths, buckets), strict=True)
    }


def _predicted(counts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[B, T] bool: the last counts[b] of the left-padded tokens of row b, but for a
    token that no other token stands before.
    """
    width = tokens.shape[1]
    return np.arange(width) >= width - np.minimum(counts, (tokens != PAD).sum(1) - 1)[:, None]


def _filled(rows: np.ndarray, batch_size: int, value: int) -> np.ndarray:
    """`rows` with rows of `value` added until batches are full."""
    missing = -len(rows) % batch_size
    return np.concatenate((rows, np.full((missing, *rows.shape[1:]), value, rows.dtype)))
