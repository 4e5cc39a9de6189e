"""Codebooks: the frozen centers of every level, and the ids that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.ids.kmeans import nearest_codes
from atspeed_jax.ids.points import data_mesh, place, unblocked


@dataclass(frozen=True, eq=False)
class Codebooks:
    """Centers of every level.

    The code of a vector at a level is the one with the smallest squared distance plus
    price. What the center leaves unexplained goes to the next level.

    Attributes:
      centers: per level [codes, D] float32.
      prices: per level [codes] float32, all 0 for the nearest code. Codes that too many
        vectors are near to have higher prices (`ids.balance`).
    """

    centers: tuple[np.ndarray, ...]
    prices: tuple[np.ndarray, ...]

    @property
    def levels(self) -> int:
        return len(self.centers)

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the id of every vector.

        Args:
          vectors: [N, D] finite floats.

        Returns:
          [N, L] int32. Equal vectors have equal ids.
        """
        distinct, place_of = distinct_rows(vectors)
        ids = np.zeros((len(distinct), self.levels), np.int32)
        mesh, count = data_mesh(), len(distinct)
        points = place(distinct, max(map(len, self.centers)), mesh)
        for level, (centers, prices) in enumerate(zip(self.centers, self.prices, strict=True)):
            nearest, left = nearest_codes(points, jnp.asarray(centers), jnp.asarray(prices))
            ids[:, level] = unblocked(nearest, count)
            points = points._replace(rows=left)
        return ids[place_of]

    def reconstruct(self, ids: np.ndarray, levels: int | None = None) -> np.ndarray:
        """Returns the sum of the centers of ids.

        Args:
          ids: [N, L].
          levels: first levels that are added; None for all.

        Returns:
          [N, D] float32.
        """
        first = range(self.levels if levels is None else levels)
        total = np.zeros((len(ids), self.centers[0].shape[1]), np.float32)
        for level in first:
            total += self.centers[level][ids[:, level]]
        return total


def distinct_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the different vectors, so that rounding cannot part equal ones.

    Args:
      vectors: [N, D] floats.

    Returns:
      (distinct [M, D] float32, the row of each vector in it [N]).
    """
    rows = np.ascontiguousarray(vectors, np.float32) + np.float32(0)  # -0 becomes 0
    words = rows.view([("", f"V{rows.shape[1] * 4}")]).reshape(-1)
    _, first, place_of = np.unique(words, return_index=True, return_inverse=True)
    return rows[first], place_of.reshape(-1)


def shuffled(count: int, seed: int) -> np.ndarray:
    """Returns a random order of `count` vectors."""
    return np.random.default_rng(seed).permutation(count)


def as_host(arrays: Sequence[jax.Array]) -> tuple[np.ndarray, ...]:
    """Returns arrays of the devices on the host, as float32."""
    return tuple(np.asarray(array, np.float32) for array in arrays)
