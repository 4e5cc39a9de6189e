"""Residual k-means: each level clusters what the levels before it leave unexplained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.ids.codebooks import Codebooks, as_host, distinct_rows, shuffled
from atspeed_jax.ids.kmeans import KMeansConfig, kmeans, nearest_codes
from atspeed_jax.ids.points import data_mesh, place


def residual_kmeans(
    vectors: np.ndarray,
    sizes: Sequence[int],
    *,
    seed: int,
    config: KMeansConfig | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Codebooks:
    """Finds the codebooks of vectors. Equal vectors count once.

    Args:
      vectors: [N, D] finite floats.
      sizes: codes of each level.
      seed: of the order of the vectors and of the first centers.
      config: of the k-means of a level.
      say: takes a line per level.
    """
    config, mesh, key = config or KMeansConfig(), data_mesh(), jax.random.key(seed)
    distinct, _ = distinct_rows(vectors)
    points = place(distinct[shuffled(len(distinct), seed)], max(sizes), mesh)
    centers = []
    for level, size in enumerate(sizes):
        found = kmeans(points, size, config, jax.random.fold_in(key, level))
        _, left = nearest_codes(points, found, jnp.zeros(size))
        points = points._replace(rows=left)
        centers.append(found)
        error = float((left**2 * points.weight[..., None]).sum()) / len(distinct)
        say(f"level {level + 1}: {size} codes, mean squared error {error:.4g}")
    return Codebooks(as_host(centers), tuple(np.zeros(size, np.float32) for size in sizes))
