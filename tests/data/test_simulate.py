import dataclasses

import numpy as np
import pytest

from atspeed_jax.data.simulate import SyntheticConfig, simulate

CONFIG = SyntheticConfig(
    users=300, item_count=200, clusters=10, dimensions=8, spread=0.2, twins=5, levels=3, codes_per_level=8,
    kmeans_iterations=10, zipf=0.8, events=12, drift=0.1, noise=0.1, days=100, active_share=0.4, min_rating=4, core=3,
    valid_share=0.1, test_share=0.1, seed=7,
)  # fmt: skip


def test_shapes_and_ranges():
    events, vectors = simulate(CONFIG)
    assert vectors.shape == (200, 8)
    assert len(events.users) == len(events.items) == len(events.ratings) == len(events.times) > 2000
    assert events.items.min() >= 0
    assert events.items.max() < 200
    assert set(events.users.tolist()) <= set(range(300))
    assert set(events.ratings.tolist()) == {1, 2, 3, 4, 5}
    assert events.times.min() >= 0
    assert events.times.max() < 100 * 86400
    assert abs(len(events) / 300 - 12) < 2


def test_nobody_sees_an_item_twice_and_nobody_is_active_for_too_long():
    events, _ = simulate(CONFIG)
    pairs = set(zip(events.users.tolist(), events.items.tolist(), strict=True))
    assert len(pairs) == len(events)
    for user in np.unique(events.users):
        times = events.times[events.users == user]
        assert times.max() - times.min() <= 0.4 * 100 * 86400
        assert (np.diff(times) >= 0).all()


def test_popularity_is_zipf():
    events, _ = simulate(dataclasses.replace(CONFIG, users=2000, noise=1.0, drift=0.0, events=3))
    counts = np.sort(np.bincount(events.items, minlength=200))[::-1]
    slope = np.polyfit(np.log(1 + np.arange(50)), np.log(counts[:50]), 1)[0]
    assert abs(slope + 0.8) < 0.15


def test_interests_show_in_the_items_and_drift():
    def share_of_neighbours_alike(**change):
        """Share of consecutive items that lie close together."""
        events, vectors = simulate(dataclasses.replace(CONFIG, **change))
        same_user = events.users[1:] == events.users[:-1]
        apart = np.linalg.norm(vectors[events.items[1:]] - vectors[events.items[:-1]], axis=1)
        return (apart < 1.5)[same_user].mean()

    faithful, drifting, random = (
        share_of_neighbours_alike(drift=0.0, noise=0.0),
        share_of_neighbours_alike(drift=0.5, noise=0.0),
        share_of_neighbours_alike(drift=0.0, noise=1.0),
    )
    assert faithful > 0.9 > 0.75 > drifting > random
    assert random < 0.2


def test_twins_share_vectors():
    _, vectors = simulate(CONFIG)
    assert len(np.unique(vectors, axis=0)) == 195


def test_more_events_than_items_and_tiny_worlds():
    events, _ = simulate(dataclasses.replace(CONFIG, item_count=6, clusters=2, twins=0, events=40, users=20))
    assert np.bincount(events.users).max() == 6
    events, _ = simulate(dataclasses.replace(CONFIG, item_count=1, clusters=1, twins=0, users=3))
    assert set(events.items.tolist()) == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": 201}, "clusters=201 for item_count=200: expected at most as many"),
        ({"twins": 101}, "twins=101: expected at most half of the items, 100"),
        ({"valid_share": 0.5, "test_share": 0.5}, "valid_share=0.5 and test_share=0.5: expected a sum below 1"),
        (
            {"users": 1_000_000, "events": 1_000.0},
            "users=1000000 with events=1000.0: expected at most 100000000 events",
        ),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_config_can_be_a_key():
    assert {CONFIG: 1}[dataclasses.replace(CONFIG)] == 1
