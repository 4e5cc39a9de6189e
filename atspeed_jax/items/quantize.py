"""Residual k-means: item vectors to ids of L codes, coarse to fine."""

from __future__ import annotations

import numpy as np


def residual_kmeans(vectors: np.ndarray, *, levels: int, codes: int, iterations: int, seed: int) -> np.ndarray:
    """Makes ids of items by residual quantization.

    Each level clusters what the levels before it left unexplained. Items with equal
    vectors get equal ids. Other items may get equal ids too, where the levels run out:
    a catalog handles such collisions.

    Args:
      vectors: [items, D] floats.
      levels: L, codes per id.
      codes: clusters per level; fewer are used where there are fewer distinct vectors.
      iterations: of Lloyd's algorithm per level.
      seed: of the first centers.

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
        centers, nearest = _kmeans(residual, min(codes, len(residual)), iterations, rng)
        residual = residual - centers[nearest]
        ids.append(nearest)
    return np.stack(ids, axis=1).astype(np.int32)[item_point.reshape(-1)]


def _kmeans(points: np.ndarray, clusters: int, iterations: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Runs Lloyd's algorithm from k-means++ centers.

    Returns:
      (centers [clusters, D], nearest center of each point [N]).
    """
    centers = _spread_centers(points, clusters, rng)
    nearest = _squared_distances(points, centers).argmin(axis=1)
    for _ in range(iterations):
        counts = np.bincount(nearest, minlength=clusters)
        sums = np.zeros_like(centers)
        np.add.at(sums, nearest, points)
        # A cluster that lost all its points keeps its center; the others move to their
        # mean.
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
        moved = _squared_distances(points, centers).argmin(axis=1)
        if (moved == nearest).all():
            break
        nearest = moved
    return centers, nearest


def _spread_centers(points: np.ndarray, clusters: int, rng) -> np.ndarray:
    """Draws the first centers by k-means++ (Arthur and Vassilvitskii, 2007).

    Each new center is a point drawn in proportion to its squared distance to the
    others.
    """
    chosen = [int(rng.integers(len(points)))]
    distance = _squared_distances(points, points[chosen])[:, 0]
    while len(chosen) < clusters:
        distance[chosen] = 0
        total = distance.sum()
        weights = distance / total if total > 0 else None  # all points coincide: any will do
        chosen.append(int(rng.choice(len(points), p=weights)))
        distance = np.minimum(distance, _squared_distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _squared_distances(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """[N, clusters], never negative."""
    products = points @ centers.T
    return np.maximum((points**2).sum(axis=1)[:, None] - 2 * products + (centers**2).sum(axis=1), 0)
