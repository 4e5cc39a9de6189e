"""Residual k-means: each level clusters what the levels before it leave unexplained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.ids.balance import Balanced, balanced_codes, balanced_kmeans
from atspeed_jax.ids.codebooks import Codebooks, as_host, distinct_rows, shuffled
from atspeed_jax.ids.kmeans import KMeansConfig, kmeans, nearest_codes
from atspeed_jax.ids.points import data_mesh, place, unblocked


def residual_kmeans(
    vectors: np.ndarray,
    sizes: Sequence[int],
    *,
    seed: int,
    balanced: bool = False,
    config: KMeansConfig | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Codebooks, np.ndarray]:
    """Finds the codebooks of vectors, and the codes of the vectors.

    Equal vectors count once and have equal codes.

    Args:
      vectors: [N, D] finite floats.
      sizes: codes of each level.
      seed: of the order of the vectors and of the first centers.
      balanced: whether no code has more than 1.2 times the vectors of the mean code
        (`balance.cap_of`). Then a few vectors do not have the code that
        `Codebooks.assign` gives.
      config: of the k-means of a level.
      say: takes a line per level.

    Returns:
      codebooks, and codes [N, L] int32.
    """
    config, key = config or KMeansConfig(), jax.random.key(seed)
    distinct, place_of = distinct_rows(vectors)
    count = len(distinct)
    order = shuffled(count, seed)
    points = place(distinct[order], max(sizes), data_mesh())
    centers, prices, codes = [], [], np.zeros((count, len(sizes)), np.int32)
    for number, size in enumerate(sizes):
        of_level = jax.random.fold_in(key, number)
        if balanced:
            level = balanced_kmeans(points, size, config, of_level)
            chosen, left = balanced_codes(points, level, count)
        else:
            level = Balanced(kmeans(points, size, config, of_level), jnp.zeros(size))
            nearest, left = nearest_codes(points, *level)
            chosen = unblocked(nearest, count)
        points = points._replace(rows=left)
        codes[order, number] = chosen
        centers.append(level.centers)
        prices.append(level.prices)
        error = float((left**2 * points.weight[..., None]).sum()) / count
        say(f"level {number + 1}: {size} codes, mean squared error {error:.4g}")
    return Codebooks(as_host(centers), as_host(prices)), codes[place_of]
