import numpy as np
import pytest

from atspeed_jax.data.split import Events, k_core, keep_rated, renumber, sequences, split_by_time


def table(*events):
    return Events(*(np.array(column) for column in zip(*events, strict=True)))


def random_table(events=800, seed=0):
    rng = np.random.default_rng(seed)
    return Events(*(rng.integers(size, size=events) for size in (80, 60, 6, 500)))


def test_keep_rated():
    kept = keep_rated(random_table(), 4)
    assert 0 < len(kept) < 800
    assert kept.ratings.min() == 4


def test_k_core_is_the_largest_part_that_satisfies_it():
    kept = k_core(random_table(), 8)
    assert 0 < len(kept) < 800
    assert np.unique(kept.users, return_counts=True)[1].min() >= 8
    assert np.unique(kept.items, return_counts=True)[1].min() >= 8
    # By hand: drop one poor user or item at a time, in any order.
    events = list(zip(*(column.tolist() for column in (random_table().users, random_table().items)), strict=True))
    while True:
        users, items = zip(*events, strict=True)
        poor = [event for event in events if users.count(event[0]) < 8 or items.count(event[1]) < 8]
        if not poor:
            break
        events = [event for event in events if event[0] != poor[0][0]] if users.count(poor[0][0]) < 8 else [
            event for event in events if event[1] != poor[0][1]
        ]  # fmt: skip
    assert sorted(events) == sorted(zip(kept.users.tolist(), kept.items.tolist(), strict=True))


def test_k_core_cascades_to_nothing():
    chain = table(*((user, item, 5, 0) for user in range(4) for item in (user, user + 1)))
    assert len(k_core(chain, 2)) == 0
    assert len(k_core(chain, 1)) == len(chain)


def test_renumber_keeps_order_and_tells_the_old_numbers():
    events, users, items = renumber(table((7, 30, 5, 1), (2, 10, 4, 2), (7, 10, 3, 3)))
    assert events.users.tolist() == [1, 0, 1]
    assert events.items.tolist() == [1, 0, 0]
    assert users.tolist() == [2, 7]
    assert items.tolist() == [10, 30]
    assert events.times.tolist() == [1, 2, 3]
    assert events.ratings.tolist() == [5, 4, 3]


def test_split_is_by_global_time_and_loses_nothing():
    events = random_table()
    train, valid, test = split_by_time(events, 0.2, 0.1)
    assert train.times.max() < valid.times.min()
    assert valid.times.max() < test.times.min()
    assert len(train) + len(valid) + len(test) == len(events)
    assert abs(len(valid) - 160) < 20
    assert abs(len(test) - 80) < 20


def test_events_of_one_moment_stay_together():
    train, valid, test = split_by_time(table(*((0, item, 5, 0 if item < 4 else 9) for item in range(10))), 0.3, 0.3)
    assert (len(train), len(valid), len(test)) == (4, 0, 6)


@pytest.mark.parametrize("shares", [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.1), (float("nan"), 0.1)])
def test_bad_shares(shares):
    with pytest.raises(ValueError, match=r"valid_share .* and test_share"):
        split_by_time(random_table(), *shares)


def test_sequences_are_in_time_order_per_user():
    rows = sequences(table((2, 5, 5, 30), (0, 1, 5, 20), (2, 6, 5, 10), (0, 3, 5, 20), (2, 7, 5, 20)), 4)
    assert [row.tolist() for row in rows] == [[1, 3], [], [6, 7, 5], []]
    assert all(row.dtype == np.int32 for row in rows)
