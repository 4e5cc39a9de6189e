"""Batches of rows that hold an instruction: one answer each."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape, prompt_batches, steps_per_epoch, train_batches, valid_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_tokens, prompt_width
from atspeed_jax.items.catalog import BOS, PAD, Catalog, Instruction

BUCKETS = (3, 6)
HISTORY = 8
INSTRUCTION = Instruction((BOS, 3), (4, 5), (6,), (BOS, 3, 7, 7, 6))


@pytest.fixture(scope="module")
def worded():
    """Users with 0 to 30 train items, and up to 14 validation items."""
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(np.arange(500), (10,) * 3), axis=1)
    catalog = dataclasses.replace(Catalog.from_codes(codes).behind(10, BOS), instruction=INSTRUCTION)
    train, valid = ([rng.integers(500, size=n) for n in rng.integers(most, size=30)] for most in (31, 15))
    train[:3], nobody = [train[0][:0], np.array([3]), np.arange(HISTORY + 2)], [np.zeros(0, np.int32)] * 30
    return Dataset("toy", catalog, *(tuple(map(np.int32, rows)) for rows in (train, valid, nobody)))


def check_examples(dataset, batches, expected):
    """Every row is the prompt of some items and the codes of the next, of which these alone are predicted."""
    catalog, found = dataset.catalog, Counter()
    rows = {(*prompt_tokens(catalog, h, HISTORY).tolist(), *catalog.tokens(i).tolist()): (h, i) for h, i in expected}
    for batch in batches:
        width = batch["tokens"].shape[1]
        assert width in {prompt_width(catalog, bucket - 1) + 3 for bucket in (*BUCKETS, HISTORY + 1)}
        for tokens, valid, predict in zip(batch["tokens"], batch["valid"], batch["predict"], strict=True):
            assert not (tokens[~valid] != PAD).any()
            assert not (np.diff(valid.astype(int)) < 0).any()
            if valid.any():
                found[rows[tuple(tokens[valid].tolist())]] += 1
                assert predict.tolist() == [False] * (width - 3) + [True] * 3
            else:
                assert not predict.any()
    return found


def test_every_train_item_is_an_answer(worded):
    expected = Counter()
    for items in map(np.ndarray.tolist, worded.train):
        expected.update((tuple(items[max(0, n - HISTORY) : n]), items[n]) for n in range(len(items)))
    steps = steps_per_epoch(worded, BatchShape(HISTORY, BUCKETS, 4))
    assert steps == -(-sum(map(len, worded.train)) // 4) == -(-expected.total() // 4)
    batches = train_batches(worded, BatchShape(HISTORY, BUCKETS, 4), seed=0)
    found = check_examples(worded, (batches[step] for step in range(steps + 20)), expected)
    assert found.keys() == expected.keys()
    assert ((), worded.train[1][0]) in found  # the first of all, after nothing


def test_every_valid_item_is_an_answer_once(worded):
    expected = Counter()
    for known, new in zip(worded.train, worded.valid, strict=True):
        items = [*known.tolist(), *new.tolist()]
        places = range(len(known), len(items))
        expected.update((tuple(items[max(0, n - HISTORY) : n]), items[n]) for n in places)
    batches = valid_batches(worded, BatchShape(HISTORY, BUCKETS, 4), users=None, seed=0)
    assert check_examples(worded, batches, expected) == expected


def test_prompts_are_read_whole(worded):
    histories = [*worded.train, np.zeros(0, np.int32)]
    for batch in prompt_batches(worded.catalog, histories, BatchShape(HISTORY, BUCKETS, 8)):
        for row, tokens, valid in zip(batch["row"].tolist(), batch["tokens"], batch["valid"], strict=True):
            items = [] if row < 0 else histories[row]  # a filler is the prompt of no items
            own = prompt_tokens(worded.catalog, items, HISTORY).tolist()
            assert tokens[valid].tolist() == own
            assert valid[-len(own) :].all()
