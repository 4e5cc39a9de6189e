"""A small world of users with drifting interests, to try everything on without a
download.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from atspeed_jax.data.split import Events
from atspeed_jax.items.catalog import MAX_CODES, MAX_LENGTH
from atspeed_jax.utils.ranges import Range, Seed, Share, check_ranges

MOST_EVENTS = 100_000_000
_SUCCESSORS = 2  # clusters an interest can drift to from each cluster
_RATINGS = np.arange(1, 6)
_LIKED = np.array([0.01, 0.03, 0.06, 0.3, 0.6])  # ratings of items of the current interest
_TRIED = np.array([0.2, 0.2, 0.2, 0.2, 0.2])  # ratings of the others


@dataclass(frozen=True)
class SyntheticConfig:
    """Size and habits of the world.

    Attributes:
      users, item_count: before the filters; a few of each do not pass them.
      clusters: groups of similar items.
      dimensions: of the item vectors.
      spread: standard deviation of the items around the center of their cluster; the
        coordinates of a center have 1.
      twins: items that copy another item's vector and so share its id.
      levels, codes_per_level: L and codes per level of the ids.
      kmeans_iterations: per level, of the quantizer.
      zipf: exponent of item popularity, weight = rank ** -zipf.
      events: mean events per user.
      drift: probability that the interest moves on before an event.
      noise: probability that an event has nothing to do with the interest. (Records of
        runs store this name.)
      days: from the first to the last possible event.
      active_share: share of that time in which one user is active.
      min_rating, core: filters, see `split.keep_rated` and `split.k_core`.
      valid_share, test_share: of the events, see `split.split_by_time`.
      seed: of everything.

    Raises:
      RangeError: a number outside its range.
      ValueError: numbers that do not go together.
    """

    users: Annotated[int, Range(1, 1_000_000)]
    item_count: Annotated[int, Range(1, 1_000_000)]
    clusters: Annotated[int, Range(1, 1_000_000)]
    dimensions: Annotated[int, Range(1, 1_000)]
    spread: Annotated[float, Range(0, 1_000)]
    twins: Annotated[int, Range(0, 500_000)]
    levels: Annotated[int, Range(1, MAX_LENGTH)]
    codes_per_level: Annotated[int, Range(1, MAX_CODES)]
    kmeans_iterations: Annotated[int, Range(1, 10_000)]
    zipf: Annotated[float, Range(0, 10)]
    events: Annotated[float, Range(0, 10_000, "(]")]
    drift: Share
    noise: Share
    days: Annotated[int, Range(1, 36_500)]
    active_share: Share
    min_rating: Annotated[int, Range(0, 5)]
    core: Annotated[int, Range(0, 10_000)]
    valid_share: Annotated[float, Range(0, 1, "()")]
    test_share: Annotated[float, Range(0, 1, "()")]
    seed: Seed

    def __post_init__(self):
        check_ranges(self)
        if self.clusters > self.item_count:
            raise ValueError(f"clusters={self.clusters} for item_count={self.item_count}: expected at most as many")
        if 2 * self.twins > self.item_count:
            most = self.item_count // 2
            raise ValueError(f"twins={self.twins}: expected at most half of the items, {most} (item_count / 2)")
        if self.users * self.events > MOST_EVENTS:
            raise ValueError(
                f"users={self.users} with events={self.events}: expected at most {MOST_EVENTS} events in all, to fit "
                "in memory"
            )
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_share={self.valid_share} and test_share={self.test_share}: expected a sum below 1, or nothing "
                "is left to train on"
            )


def simulate(config: SyntheticConfig) -> tuple[Events, np.ndarray]:
    """Makes the events of a world.

    A user's interest is a cluster. Before each event the interest may drift to one of
    that cluster's successors; the item is drawn from the cluster by popularity, never
    twice for one user. So the last items say more about the next ones than popularity
    does.

    Args:
      config: of the world; the same config makes the same world.

    Returns:
      The events, and the items' vectors [items, dimensions].
    """
    rng = np.random.default_rng(config.seed)
    cluster, vectors = _make_items(config, rng)
    weights = rng.permutation((1.0 + np.arange(config.item_count)) ** -config.zipf)
    successors = rng.integers(config.clusters, size=(config.clusters, _SUCCESSORS))
    # Gamma before Poisson: some users are far more active than others.
    counts = np.minimum(rng.poisson(rng.gamma(4.0, config.events / 4.0, config.users)), config.item_count)
    members = [np.flatnonzero(cluster == number) for number in range(config.clusters)]
    seconds = config.days * 86400
    users, items, ratings, times = [], [], [], []
    for user, count in enumerate(counts.tolist()):
        chosen, liked = _walk(config, members, weights, successors, count, rng)
        start = rng.uniform(0, 1 - config.active_share) * seconds
        moments = np.sort(rng.uniform(start, start + config.active_share * seconds, count)).astype(np.int64)
        users.append(np.full(count, user))
        items.append(chosen)
        ratings.append(np.where(liked, rng.choice(_RATINGS, count, p=_LIKED), rng.choice(_RATINGS, count, p=_TRIED)))
        times.append(moments)
    return Events(*(np.concatenate(column) for column in (users, items, ratings, times))), vectors


def _make_items(config: SyntheticConfig, rng) -> tuple[np.ndarray, np.ndarray]:
    """Cluster [items] and vector [items, D] of every item."""
    cluster = rng.permutation(np.arange(config.item_count) % config.clusters)
    centers = rng.normal(size=(config.clusters, config.dimensions))
    vectors = centers[cluster] + config.spread * rng.normal(size=(config.item_count, config.dimensions))
    originals, copies = rng.permutation(config.item_count)[: 2 * config.twins].reshape(2, config.twins)
    cluster[copies] = cluster[originals]
    vectors[copies] = vectors[originals]
    return cluster, vectors


def _walk(config: SyntheticConfig, members, weights, successors, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """One user's items [count] in order, and whether each came from the interest of its
    moment.
    """
    left = weights.copy()
    everything = np.arange(len(weights))
    interest = rng.integers(config.clusters)
    items, liked = np.zeros(count, np.int64), np.zeros(count, bool)
    for event in range(count):
        if rng.random() < config.drift:
            interest = successors[interest, rng.integers(_SUCCESSORS)]
        pool = members[interest]
        liked[event] = rng.random() >= config.noise and left[pool].any()
        if not liked[event]:
            pool = everything
        cumulative = np.cumsum(left[pool])
        position = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        items[event] = pool[position]
        left[pool[position]] = 0
    return items, liked
