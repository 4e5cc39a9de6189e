"""Fewer users than rows of a batch, or than devices: each is counted once, nobody is made up."""

from collections import Counter

import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape, prompt_batches, steps_per_epoch, train_batches, valid_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.items.catalog import Catalog
from devices import report_of

CATALOG = Catalog.from_codes(np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), 1))
NOTHING = np.zeros(0, np.int32)


def of_users(train, valid):
    """A dataset of users with one item each in train, and in valid as many as are named."""
    rows = [np.array([user], np.int32) for user in range(train)]
    held_out = [np.array([20 + user], np.int32) if user < valid else NOTHING for user in range(train)]
    return Dataset("few", CATALOG, tuple(rows), tuple(held_out), tuple([NOTHING] * train))


def test_three_users_fill_a_batch_of_256_by_turns():
    dataset, shape = of_users(3, 1), BatchShape(4, (5,), 256)
    assert steps_per_epoch(dataset, shape) == 1
    batch = train_batches(dataset, shape, seed=0)[0]
    assert batch["tokens"].shape[0] == 256
    assert batch["predict"].sum(1).tolist() == [3] * 256
    assert sorted(Counter(map(tuple, batch["tokens"].tolist())).values()) == [85, 85, 86]


def test_one_validation_user_is_predicted_once_in_a_batch_of_256():
    (batch,) = valid_batches(of_users(3, 1), BatchShape(4, (5,), 256), users=8, seed=0)
    assert batch["predict"].sum() == 3
    assert batch["valid"].any(1).sum() == 1


@pytest.mark.parametrize(("users", "batches"), [(1, 1), (63, 1), (64, 1), (67, 2)])
def test_test_users_are_each_in_one_row(users, batches):
    histories = [np.array([user % 27], np.int32) for user in range(users)]
    made = prompt_batches(CATALOG, histories, BatchShape(4, (4,), 64))
    rows = np.concatenate([batch["row"] for batch in made])
    assert len(made) == batches
    assert sorted(rows[rows >= 0].tolist()) == list(range(users))
    assert len(rows) == 64 * batches
    assert all(batch["valid"].any(1).all() for batch in made)


@pytest.mark.slow
def test_the_pipeline_with_few_users_on_eight_devices(tmp_path):
    reports = report_of("few_users.py", 8, str(tmp_path))
    for name, users in {"three train users": 1, "67 test users": 67}.items():
        rows, quality = reports[name]["decoding"], reports[name]["quality"]["target"]["seen_kept"]
        assert [row["users"] for row in rows] == [users] * 3
        assert len(rows) == 3
        assert [row["mismatched_users"] for row in rows] == [0] * 3
        assert all(1 <= row["target_calls_mean"] <= 3 for row in rows)
        assert (quality["users"], quality["truths"]) == (users, users)
