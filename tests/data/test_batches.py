import time
from collections import Counter

import grain
import numpy as np
import pytest

from atspeed_jax.data.batches import (
    BatchShape,
    prompt_batches,
    steps_per_epoch,
    train_batches,
    valid_batches,
)
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.items.catalog import BOS, FIRST_CODE, PAD, Catalog

BUCKETS = (3, 6)
HISTORY = 8


def make_dataset(users=60, items=500, length=3, seed=0):
    """Users with 0 to 30 train items, windows of exactly HISTORY + 1 items and one more among them."""
    rng = np.random.default_rng(seed)
    digits = np.stack(np.unravel_index(np.arange(items), (10,) * length), axis=1)
    counts = np.concatenate(([0, 0, 1, 9, 10, 30], rng.integers(14, size=users - 6)))
    train = np.split(rng.integers(items, size=counts.sum()), np.cumsum(counts)[:-1])
    valid = [rng.integers(items, size=size) for size in np.concatenate(([2, 0, 1], rng.integers(15, size=users - 3)))]
    test = [np.zeros(0, np.int32)] * users
    return Dataset("toy", Catalog.from_codes(digits), *(tuple(map(np.int32, rows)) for rows in (train, valid, test)))


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


def items_of(catalog, row):
    """Items of one left-padded row [T]; checks that it is PAD, BOS, whole ids. None for a row of PAD."""
    start = np.flatnonzero(row != PAD)
    if not len(start):
        return None
    assert row[start[0]] == BOS
    assert (row[start[0] + 1 :] >= FIRST_CODE).all()
    codes = catalog.codes_of_tokens(row[start[0] + 1 :].reshape(-1, catalog.length))
    return catalog.id_of_item.argsort()[np.searchsorted(number(catalog.ids), number(codes))].tolist()


def number(codes):
    return codes @ (10 ** np.arange(codes.shape[1])[::-1])


def same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])
        assert one[key].dtype == two[key].dtype


def test_batches_are_grain_and_resume_anywhere(dataset):
    def make(seed=5):
        return train_batches(dataset, BatchShape(HISTORY, BUCKETS, 4), seed=seed)

    batches, late = make(), make()
    assert isinstance(batches, grain.MapDataset)
    first = [batches[step] for step in range(60)]
    for step in (59, 7, 31, 0):  # a fresh object, out of order
        same(late[step], first[step])
    same(batches[10**6], make()[10**6])
    assert any((make(6)[step]["tokens"].shape != first[step]["tokens"].shape) or
               (make(6)[step]["tokens"] != first[step]["tokens"]).any() for step in range(5))  # fmt: skip


def test_train_windows_lose_no_item_and_the_newest_is_full(dataset):
    batch_size, windows = 4, Counter()
    batches = train_batches(dataset, BatchShape(HISTORY, BUCKETS, batch_size), seed=0)
    expected = Counter()
    for items in dataset.train:
        items = items.tolist()
        while items:
            expected[tuple(items[-HISTORY - 1 :])] += 1
            items = items[: -HISTORY - 1]
    steps = steps_per_epoch(dataset, BatchShape(HISTORY, BUCKETS, batch_size))
    assert steps == -(-expected.total() // batch_size)
    for step in range(3 * steps):
        for row in batches[step]["tokens"]:
            windows[tuple(items_of(dataset.catalog, row))] += 1
    assert windows.keys() == expected.keys()
    assert sum(map(len, expected.elements())) == sum(map(len, dataset.train))


def test_train_batch_has_fixed_shapes_left_padding_and_masks(dataset):
    batches = train_batches(dataset, BatchShape(HISTORY, BUCKETS, 5), seed=0)
    seen = set()
    for step in range(40):
        tokens, valid, predict = (batches[step][key] for key in ("tokens", "valid", "predict"))
        assert tokens.dtype == np.int32
        assert valid.dtype == predict.dtype == bool
        assert tokens.shape == valid.shape == predict.shape
        assert tokens.shape[0] == 5
        seen.add(tokens.shape[1])
        assert (np.diff(valid.astype(int), axis=1) >= 0).all()
        assert valid[:, -1].all()
        np.testing.assert_array_equal(valid, tokens != PAD)
        np.testing.assert_array_equal(predict, (tokens != PAD) & (tokens != BOS))
        lengths = [len(items_of(dataset.catalog, row)) for row in tokens]
        bucket = (tokens.shape[1] - 1) // 3
        assert all({3: 1, 6: 4, 9: 7}[bucket] <= length <= bucket for length in lengths)
    assert seen == {1 + 3 * bucket for bucket in (3, 6, HISTORY + 1)}


def test_valid_batches_predict_every_item_once_after_its_past(dataset):
    batches = valid_batches(dataset, BatchShape(HISTORY, BUCKETS, 4), users=None, seed=0)
    found = Counter()
    for batch in batches:
        tokens, valid, predict = batch["tokens"], batch["valid"], batch["predict"]
        assert tokens.shape[0] == 4
        assert tokens.dtype == np.int32
        assert predict.dtype == bool
        np.testing.assert_array_equal(valid, tokens != PAD)
        assert not predict[tokens < FIRST_CODE].any()
        for row, wanted in zip(tokens, predict, strict=True):
            items = items_of(dataset.catalog, row)
            if items is None:
                assert not wanted.any()
                continue
            new = wanted.sum() // dataset.catalog.length
            assert new > 0
            assert wanted[-new * dataset.catalog.length :].all()
            assert len(items) <= HISTORY + 1
            found[tuple(items), int(new)] += 1
    expected = Counter()
    for known, new in zip(dataset.train, dataset.valid, strict=True):
        sequence, start = [*known.tolist(), *new.tolist()], len(known)
        while start < len(sequence):
            end = min(start + (HISTORY + 1) // 2, len(sequence))
            window = sequence[max(0, end - HISTORY - 1) : end]
            assert len(window) - (end - start) >= min(start, HISTORY // 2)  # context of the first item to be predicted
            expected[tuple(window), end - start] += 1
            start = end
    assert found == expected
    assert sum(new * count for (_, new), count in expected.items()) == sum(map(len, dataset.valid))


def test_valid_batches_take_a_fixed_choice_of_users(dataset):
    def predicted(users, seed=0):
        batches = valid_batches(dataset, BatchShape(HISTORY, BUCKETS, 4), users=users, seed=seed)
        return batches, sum(batch["predict"].sum() for batch in batches) // 3

    some, count = predicted(10)
    again, _ = predicted(10)
    for one, two in zip(some, again, strict=True):
        same(one, two)
    total = sum(map(len, dataset.valid))
    assert 10 <= count < total == predicted(None)[1] == predicted(10**6)[1]
    assert len({predicted(10, seed)[1] for seed in range(5)}) > 1
    # A user with validation items and no train items is among them: BOS, then what is to be predicted.
    lonely = make_dataset(users=6)
    lonely = Dataset(lonely.name, lonely.catalog, lonely.train[:1], lonely.valid[:1], lonely.test[:1])
    (batch,) = valid_batches(lonely, BatchShape(HISTORY, (2,), 2), users=5, seed=0)
    assert batch["predict"].sum(axis=1).tolist() == [6, 0]
    assert batch["valid"].sum(axis=1).tolist() == [7, 0]
    assert batch["tokens"].shape == (2, 1 + 3 * 2)


def test_prompt_batches_hold_every_history_once(dataset):
    histories = [*dataset.train, np.zeros(0, np.int32)]
    batches = prompt_batches(dataset.catalog, histories, BatchShape(HISTORY, BUCKETS, 8))
    rows, fillers = [], 0
    for batch in batches:
        assert batch["tokens"].shape[0] == 8 == len(batch["row"])
        assert batch["row"].dtype == np.int32
        assert batch["tokens"].shape[1] in {1 + 3 * bucket for bucket in (3, 6, 8)}
        np.testing.assert_array_equal(batch["valid"], batch["tokens"] != PAD)
        for row, tokens in zip(batch["row"].tolist(), batch["tokens"], strict=True):
            items = items_of(dataset.catalog, tokens)
            if row == -1:
                fillers += 1
                assert items == []
            else:
                rows.append(row)
                assert items == histories[row][-HISTORY:].tolist()
    assert sorted(rows) == list(range(len(histories)))
    assert 0 < fillers < 8 * 3
    widths = [batch["tokens"].shape[1] for batch in batches]
    assert widths == sorted(widths)


def test_prompts_of_nobody_and_of_nothing(dataset):
    assert prompt_batches(dataset.catalog, [], BatchShape(4, (2,), 3)) == []
    (batch,) = prompt_batches(dataset.catalog, [[], []], BatchShape(4, (2,), 3))
    assert batch["row"].tolist() == [0, 1, -1]
    assert batch["tokens"].tolist() == [[PAD] * 6 + [BOS]] * 3
    (batch,) = prompt_batches(dataset.catalog, [[5, 6]], BatchShape(0, (2,), 1))
    assert batch["tokens"].tolist() == [[BOS]]
    with pytest.raises(ValueError, match="batch_size is 0"):
        prompt_batches(dataset.catalog, [[]], BatchShape(4, (2,), 0))


def test_a_batch_costs_little():
    batches = train_batches(make_dataset(users=3000, items=1000), BatchShape(20, (5, 10), 256), seed=0)
    costs = []
    for step in range(60):
        start = time.perf_counter()
        batches[step]
        costs.append(time.perf_counter() - start)
    assert np.median(costs) < 4e-3


def test_processes_that_read_their_own_rows_read_the_batch_of_one(dataset):
    shape = BatchShape(4, (2,), 6)
    whole = train_batches(dataset, shape, seed=3)
    parts = [train_batches(dataset, shape, seed=3, rows=np.arange(start, start + 3)) for start in (0, 3)]
    for step in (0, 1, 5, 17):
        for name, values in whole[step].items():
            np.testing.assert_array_equal(values, np.concatenate([part[step][name] for part in parts]))
