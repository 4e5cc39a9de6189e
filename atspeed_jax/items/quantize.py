"""Residual k-means: item vectors to ids of L codes, coarse to fine."""

from __future__ import annotations

import numpy as np


def residual_kmeans(vectors: np.ndarray, *, levels: int, codes: int, iterations: int, seed: int) -> np.ndarray:
    """Ids of items by residual quantisation: each level clusters what the levels before it left unexplained.

    Items with equal vectors get equal ids; others may, if the levels run out (collisions are the catalogue's business).

    Args:
      vectors: [items, D] floats.
      levels: L, codes per id.
      codes: clusters per level; fewer are used where there are fewer distinct vectors.
      iterations: of Lloyd's algorithm per level.
      seed: of the first centres.

    Returns:
      [items, L] int32, codes 0..codes-1.

    Raises:
      ValueError: vectors that are no finite matrix, or a count below 1.
    """
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(
            f"vectors have shape {vectors.shape}; expected a matrix [items, dimensions] of at least one item."
        )
    if not np.isfinite(vectors).all():
        item = int(np.argwhere(~np.isfinite(vectors))[0, 0])
        raise ValueError(f"the vector of item {item} is not finite; correct it before making ids.")
    for name, count in (("levels", levels), ("codes", codes), ("iterations", iterations)):
        if count < 1:
            raise ValueError(f"{name} is {count}; expected 1 or more.")
    # Equal vectors are one point, so that rounding cannot part them.
    residual, item_point = np.unique(vectors, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    ids = []
    for _ in range(levels):
        centres, nearest = _kmeans(residual, min(codes, len(residual)), iterations, rng)
        residual = residual - centres[nearest]
        ids.append(nearest)
    return np.stack(ids, axis=1).astype(np.int32)[item_point.reshape(-1)]


def _kmeans(points: np.ndarray, clusters: int, iterations: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm from k-means++ centres: centres [clusters, D] and the nearest centre of each point [N]."""
    centres = _spread_centres(points, clusters, rng)
    nearest = _squared_distances(points, centres).argmin(axis=1)
    for _ in range(iterations):
        counts = np.bincount(nearest, minlength=clusters)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        # A cluster that lost all its points keeps its centre; the others move to their mean.
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        moved = _squared_distances(points, centres).argmin(axis=1)
        if (moved == nearest).all():
            break
        nearest = moved
    return centres, nearest


def _spread_centres(points: np.ndarray, clusters: int, rng) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii, 2007): each new centre is a point drawn in proportion to its squared
    distance to the others."""
    chosen = [int(rng.integers(len(points)))]
    distance = _squared_distances(points, points[chosen])[:, 0]
    while len(chosen) < clusters:
        distance[chosen] = 0
        total = distance.sum()
        weights = distance / total if total > 0 else None  # all points coincide: any will do
        chosen.append(int(rng.choice(len(points), p=weights)))
        distance = np.minimum(distance, _squared_distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """[N, clusters], never negative."""
    products = points @ centres.T
    return np.maximum((points**2).sum(axis=1)[:, None] - 2 * products + (centres**2).sum(axis=1), 0)
