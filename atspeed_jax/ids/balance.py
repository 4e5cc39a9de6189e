"""Codes of about equal size, by Sinkhorn's algorithm.

Each code has a price, which is added to the squared distance to it. Sinkhorn's
algorithm finds prices at which all codes get the same weight of vectors, each of which
is spread over the codes by a softmax of the negative cost. Only the prices are kept, so
the memory is that of one block, and a new vector gets its code by the same prices.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from atspeed_jax.ids.kmeans import KMeansConfig, add_up, kmeans, means, nearest_codes, scores
from atspeed_jax.ids.points import Points, unblocked

MOST_OF_MEAN = 1.2  # vectors of the largest code, by those of the mean code
_SAMPLE = 256  # vectors per code that prices and centers are learned from
_SPLITS = 10  # rounds in which centers move from small codes to large ones
_SMALL = 0.5  # of the mean, below which a code gives its center up
# Temperatures by the mean squared distance, one after another; at the last ones the
# centers stay. Colder, and a softmax is nearly a choice.
_MOVING = (0.1, 0.07, 0.05, 0.03, 0.02, 0.02)
_STAYING = (0.02, 0.01, 0.01, 0.005)
_SINKHORN = 4  # price updates at a temperature


class Balanced(NamedTuple):
    """A level of equal codes.

    Attributes:
      centers: [codes, D].
      prices: [codes], mean 0.
    """

    centers: Float[Array, "K D"]
    prices: Float[Array, "K"]


def balanced_kmeans(points: Points, codes: int, config: KMeansConfig, key: jax.Array) -> Balanced:
    """Finds the centers of a level, and prices that give all codes about equal size.

    Args:
      points: in random order.
      codes: of the level.
      config: of the k-means that the centers start from.
      key: of the first centers and of split codes.
    """
    first, later = jax.random.split(key)
    rows = points.rows.shape[1]
    some = Points(*(array[: max(1, -(-_SAMPLE * codes // rows))] for array in points))
    centers, none = kmeans(some, codes, config, first), jnp.zeros(codes)
    for number in range(_SPLITS):
        nearest, _ = nearest_codes(some, centers, none)
        centers, moved = _split(jax.random.fold_in(later, number), some, centers, nearest)
        for _ in range(2):
            centers = means(add_up(some, centers, none, 0, len(some.rows)), centers)
        if not moved:
            break
    return balanced_prices(some, centers, moving=True)


def balanced_prices(points: Points, centers: Float[Array, "K D"], *, moving: bool) -> Balanced:
    """Finds the prices that balance codes.

    Args:
      points: all of them.
      centers: of the codes.
      moving: whether the centers move to the mean of their vectors.
    """
    blocks, prices = len(points.rows), jnp.zeros(len(centers))
    sums = add_up(points, centers, prices, 0, blocks)
    scale = max(float(sums.error) / float(points.weight.sum()), 1e-12)
    best, least = prices, math.inf
    for number, temperature in enumerate((*_MOVING, *_STAYING)):
        for _ in range(_SINKHORN):
            prices = prices + temperature * scale * _log_weights(points, centers, prices, temperature * scale)
        sums = add_up(points, centers, prices, 0, blocks)
        if moving and number < len(_MOVING):
            centers = means(sums, centers)
        elif float(sums.counts.max()) < least:
            best, least = prices, float(sums.counts.max())
    return Balanced(centers, best - best.mean())


def _split(key: jax.Array, points: Points, centers: Float[Array, "K D"], nearest) -> tuple[Float[Array, "K D"], int]:
    """Moves the centers of small codes to vectors of codes with twice the mean or more.

    Returns:
      centers, and how many moved.
    """
    codes = len(centers)
    flat, weight = np.asarray(nearest).reshape(-1), np.asarray(points.weight).reshape(-1)
    sizes = np.bincount(flat, weights=weight, minlength=codes)
    wanted = np.repeat(np.arange(codes), np.maximum(np.round(sizes / sizes.mean()).astype(int) - 1, 0))
    wanted = wanted[np.argsort(-sizes[wanted], kind="stable")]
    small = np.argsort(sizes, kind="stable")[: (sizes < _SMALL * sizes.mean()).sum()]
    count = min(len(wanted), len(small))
    if not count:
        return centers, 0
    rng = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    rows = np.array([rng.choice(np.flatnonzero((flat == code) & (weight > 0))) for code in wanted[:count]])
    chosen = points.rows.reshape(-1, points.rows.shape[-1])[jnp.asarray(rows)]
    return centers.at[jnp.asarray(small[:count])].set(chosen), count


@jax.jit
def _log_weights(
    points: Points, centers: Float[Array, "K D"], prices: Float[Array, "K"], temperature: float
) -> Float[Array, "K"]:
    """Log of the weight of each code, by that of the mean code."""

    def step(total, block):
        vectors, weight = block
        spread = jax.nn.softmax(-(scores(vectors, centers) + prices) / temperature, axis=1)
        return total + (spread * weight[:, None]).sum(axis=0), None

    total, _ = lax.scan(step, jnp.zeros(len(centers)), points)
    return jnp.log(jnp.maximum(total * len(centers) / total.sum(), 1e-6))


def cap_of(count: int, codes: int) -> int:
    """Returns the most vectors that a code may have."""
    mean = count / codes
    return max(math.floor(MOST_OF_MEAN * mean), math.ceil(mean))


def balanced_codes(points: Points, level: Balanced, count: int) -> tuple[np.ndarray, Float[Array, "N R D"]]:
    """Returns the code of every vector, none with more than `cap_of` vectors.

    A vector gets its code by the prices. Of a code with too many vectors, those that
    lose least move to the nearest code with room.

    Args:
      points: vectors in blocks.
      level: centers and prices.
      count: of the vectors.

    Returns:
      codes [count] int32, and what they leave unexplained, in blocks.
    """
    nearest, left = nearest_codes(points, level.centers, level.prices)
    codes, cap = unblocked(nearest, count).copy(), cap_of(count, len(level.centers))
    sizes = np.bincount(codes, minlength=len(level.centers))
    if sizes.max() <= cap:
        return codes, left
    vectors, centers, prices = unblocked(points.rows, count), np.asarray(level.centers), np.asarray(level.prices)
    for code in np.flatnonzero(sizes > cap).tolist():
        members = np.flatnonzero(codes == code)
        cost = (centers**2).sum(axis=1) - 2 * vectors[members] @ centers.T + prices
        own = cost[:, code].copy()
        cost[:, sizes >= cap] = np.inf
        for row in np.argsort(cost.min(axis=1) - own, kind="stable")[: sizes[code] - cap].tolist():
            other = int(np.where(sizes < cap, cost[row], np.inf).argmin())
            codes[members[row]] = other
            sizes[other] += 1
        sizes[code] = cap
    return codes, _left_by(points, level.centers, codes)


def _left_by(points: Points, centers: Float[Array, "K D"], codes: np.ndarray) -> Float[Array, "N R D"]:
    blocks, rows, _ = points.rows.shape
    padded = np.zeros(blocks * rows, np.int32)
    padded[: len(codes)] = codes
    return _less_centers(points.rows, centers, jnp.asarray(padded.reshape(blocks, rows)))


@jax.jit
def _less_centers(rows, centers, codes):
    return rows - centers[codes]
