"""Numbers that count from 1 where items count from 0."""

import numpy as np
import pytest

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.numbering import count_from_one
from atspeed_jax.data.sources import Source, read_atspeed

ITEMS = 200


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    parts = (tuple(rng.integers(ITEMS, size=size).astype(np.int32) for _ in range(30)) for size in (8, 1, 2))
    return Dataset.of(Source("shop", np.arange(ITEMS)[:, None], *parts))


def test_numbers_of_the_sequential_files_are_known(dataset):
    ours = [dataset.history(user, "test") for user in range(dataset.users)]
    assert count_from_one(dataset, [items + 1 for items in ours])
    assert count_from_one(dataset, [items[-5:] + 1 for items in ours[:4]])  # the newest of some
    assert not count_from_one(dataset, ours)
    assert not count_from_one(dataset, [items + 2 for items in ours])
    assert not count_from_one(dataset, [items - 1 for items in ours])


def test_nothing_is_said_of_histories_that_tell_nothing(dataset):
    rng = np.random.default_rng(1)
    strangers = [rng.integers(ITEMS, size=10) for _ in range(1000)]
    for histories in (strangers, [items[:2] + 1 for items in dataset.train], [np.zeros(0)], []):
        assert not count_from_one(dataset, histories)
    assert not count_from_one(dataset, [dataset.train[0][:6] + 1])  # four runs


def test_a_catalog_in_which_neighbors_follow_each_other():
    """Where most runs are found both ways, nothing is said."""
    walk = tuple(np.arange(start, start + 9, dtype=np.int32) for start in range(50))
    dataset = Dataset.of(Source("shop", np.arange(60)[:, None], walk, walk[1:] + walk[:1], walk))
    assert not count_from_one(dataset, [items + 1 for items in walk])
    assert not count_from_one(dataset, walk)


def test_beauty(beauty_dir):
    dataset = Dataset.of(read_atspeed(beauty_dir))
    ours = [dataset.history(user, "test")[-20:] for user in range(1000)]
    assert count_from_one(dataset, [items + 1 for items in ours])
    assert not count_from_one(dataset, ours)
