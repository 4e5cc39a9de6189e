"""How long ids take, and how good they are, beside scikit-learn's k-means per level."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from atspeed_jax.ids.collisions import groups
from atspeed_jax.ids.residual import residual_kmeans
from atspeed_jax.ids.rqvae import RqvaeConfig, train_rqvae


@dataclasses.dataclass(frozen=True)
class IdsBenchmark:
    """What is quantized.

    Attributes:
      width: D of the vectors.
      clusters: of the vectors, of very different sizes.
      levels, codes: L and codes per level.
      compared: most vectors for which scikit-learn, balanced codes and the RQ-VAE run
        too.
      rqvae: how the RQ-VAE is trained.
      seed: of everything.
    """

    width: int = 64
    clusters: int = 1_000
    levels: int = 4
    codes: int = 256
    compared: int = 100_000
    rqvae: RqvaeConfig = dataclasses.field(default_factory=RqvaeConfig)
    seed: int = 0


def clustered_vectors(config: IdsBenchmark, count: int) -> np.ndarray:
    """Returns vectors [count, width] float32 around centers, some with many vectors."""
    rng = np.random.default_rng(config.seed)
    weight = (1 + np.arange(config.clusters)) ** -0.7
    cluster = rng.choice(config.clusters, count, p=weight / weight.sum())
    centers = rng.normal(size=(config.clusters, config.width)).astype(np.float32)
    return centers[cluster] + 0.7 * rng.normal(size=(count, config.width)).astype(np.float32)


def measure_ids(config: IdsBenchmark, count: int, say: Callable[[str], None]) -> list[dict]:
    """Quantizes vectors by every method.

    Args:
      config: what is quantized.
      count: number of vectors.
      say: takes a line per method.

    Returns:
      A row per method. seconds: of fitting and of giving all vectors codes, compilation
      included. error: mean squared error. error_ratio: by that of scikit-learn, None
      where it was not run. collided: share of vectors that share their codes.
      largest_of_mean: vectors of the largest code of any level, by those of the mean
      code.
    """
    vectors, rows = clustered_vectors(config, count), []
    sizes = (config.codes,) * config.levels
    calls: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {"kmeans": lambda: _ours(vectors, sizes, config)}
    if count <= config.compared:
        calls |= {
            "scikit-learn": lambda: _scikit_learn(vectors, config),
            "balanced": lambda: _ours(vectors, sizes, config, balanced=True),
            "rqvae": lambda: _rqvae(vectors, sizes, config),
        }
    for name, call in calls.items():
        start = time.perf_counter()
        codes, rebuilt = call()
        row: dict[str, Any] = {"vectors": count, "method": name, "seconds": time.perf_counter() - start}
        counts = np.bincount(groups(codes))
        largest = max(np.bincount(level, minlength=config.codes).max() for level in codes.T)
        row["error"] = float(((vectors - rebuilt) ** 2).sum(axis=1).mean())
        row["collided"] = float(counts[counts > 1].sum() / count)
        row["largest_of_mean"] = float(largest * config.codes / count)
        say(f"{count} vectors, {name}: {row['seconds']:.1f} s, error {row['error']:.5g}")
        rows.append(row)
    errors = {row["method"]: row["error"] for row in rows}
    peer = errors.get("scikit-learn")
    return [{**row, "error_ratio": None if peer is None else row["error"] / peer} for row in rows]


def _ours(vectors, sizes, config: IdsBenchmark, *, balanced: bool = False) -> tuple[np.ndarray, np.ndarray]:
    books, codes = residual_kmeans(vectors, sizes, seed=config.seed, balanced=balanced)
    return codes, books.reconstruct(codes)


def _rqvae(vectors, sizes, config: IdsBenchmark) -> tuple[np.ndarray, np.ndarray]:
    autoencoder, books, codes = train_rqvae(vectors, sizes, seed=config.seed, config=config.rqvae)
    return codes, autoencoder.decode(books.reconstruct(codes))


def _scikit_learn(vectors, config: IdsBenchmark) -> tuple[np.ndarray, np.ndarray]:
    left, codes = vectors, []
    for level in range(config.levels):
        found = KMeans(config.codes, n_init="auto", random_state=config.seed + level).fit(left)  # one start
        left = left - found.cluster_centers_[found.labels_]
        codes.append(found.labels_)
    return np.stack(codes, axis=1), vectors - left
