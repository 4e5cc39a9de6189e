"""k-means of one level: greedy k-means++ centers, minibatches, whole passes over all
vectors, dead codes revived.

A program reads the vectors block by block. The rows of a block are split over the
devices, and XLA adds up what the devices found, so one device and several find the same
centers up to rounding.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from atspeed_jax.ids.points import Points
from atspeed_jax.utils.ranges import Range, check_ranges

_EXACT = lax.Precision.HIGHEST  # fewer bits would give near codes the wrong vectors
_TRIALS = 5  # candidates for each first center
_SAMPLE = 16  # vectors per code that the first centers are drawn from
_LEAST_SAMPLE = 16_384


@dataclass(frozen=True)
class KMeansConfig:
    """How the centers of a level are found.

    Attributes:
      passes: most passes over all vectors.
      tolerance: relative gain of the error below which the passes end.
      minibatch_from: vectors from which minibatches come before the passes over all
        vectors.
      minibatch: vectors of a minibatch; at least 16 per code are taken.
      epochs: how often minibatches go over all vectors.
    """

    passes: Annotated[int, Range(1, 10_000)] = 60
    tolerance: Annotated[float, Range(0, 1)] = 1e-4
    minibatch_from: Annotated[int, Range(1, 1 << 36)] = 200_000
    minibatch: Annotated[int, Range(1, 1 << 30)] = 32_768
    epochs: Annotated[int, Range(0, 100)] = 2

    def __post_init__(self):
        check_ranges(self)


class Sums(NamedTuple):
    """What a pass over vectors adds up.

    Attributes:
      vectors: [codes, D] sum of the vectors of each code.
      counts: [codes] vectors of each code.
      error: sum of the squared distances to the centers.
    """

    vectors: Float[Array, "K D"]
    counts: Float[Array, "K"]
    error: Float[Array, ""]


def kmeans(points: Points, codes: int, config: KMeansConfig, key: jax.Array) -> Float[Array, "K D"]:
    """Finds the centers of a level.

    Args:
      points: in random order, since a minibatch is a run of blocks.
      codes: K, number of centers. With fewer distinct vectors than codes the last
        centers repeat others, and no vector is nearest to them.
      config: how.
      key: of the first centers and of revived ones.

    Returns:
      [K, D] float32.
    """
    first, later = jax.random.split(key)
    blocks, rows, width = points.rows.shape
    sample = min(blocks, -(-max(_SAMPLE * codes, _LEAST_SAMPLE) // rows))
    none = jnp.zeros(codes)
    prices = jnp.zeros(codes)
    centers = fill_centers(first, points, jnp.zeros((codes, width)), none, sample)
    if blocks * rows >= config.minibatch_from and config.epochs:
        centers = _minibatches(points, centers, config)
    before = math.inf
    for number in range(config.passes):
        sums = add_up(points, centers, prices, 0, blocks)
        centers = means(sums, centers)
        if (sums.counts == 0).any():
            centers = fill_centers(jax.random.fold_in(later, number), points, centers, sums.counts, sample)
        error = float(sums.error)
        if before - error <= config.tolerance * before and not math.isinf(before):
            break
        before = error
    return centers


def _minibatches(points: Points, centers: Float[Array, "K D"], config: KMeansConfig) -> Float[Array, "K D"]:
    """Moves each center to the mean of all vectors that a minibatch gave it so far."""
    codes = len(centers)
    blocks, rows, _ = points.rows.shape
    size = min(blocks, -(-max(config.minibatch, _SAMPLE * codes) // rows))
    prices = jnp.zeros(codes)
    for _ in range(config.epochs):
        seen = jnp.zeros(codes)  # an epoch forgets the one before, whose centers were worse
        for start in range(0, blocks - size + 1, size):
            sums = add_up(points, centers, prices, start, size)
            seen = seen + sums.counts
            step = (sums.vectors - sums.counts[:, None] * centers) / jnp.maximum(seen, 1)[:, None]
            centers = centers + step
    return centers


def means(sums: Sums, centers: Float[Array, "K D"]) -> Float[Array, "K D"]:
    """Returns the mean of each code's vectors; the old center of a code without any."""
    return jnp.where(sums.counts[:, None] > 0, sums.vectors / jnp.maximum(sums.counts, 1)[:, None], centers)


def scores(block: Float[Array, "R D"], centers: Float[Array, "K D"]) -> Float[Array, "R K"]:
    """Returns squared distances less the squared length of the vector."""
    products = jnp.matmul(block, centers.T, precision=_EXACT)
    return (centers**2).sum(axis=1) - 2 * products


def smallest(values: Float[Array, "R K"]) -> tuple[Int[Array, "R"], Float[Array, "R"]]:
    """Returns place and value of the smallest of each row, the first one of equal ones.

    On a CPU this is faster than argmin.
    """
    low = values.min(axis=1)
    places = jnp.arange(values.shape[1], dtype=jnp.int32)
    return jnp.where(values == low[:, None], places, values.shape[1] - 1).min(axis=1), low


@functools.partial(jax.jit, static_argnames="blocks")
def add_up(
    points: Points, centers: Float[Array, "K D"], prices: Float[Array, "K"], start: int | Array, blocks: int
) -> Sums:
    """Gives every vector of some blocks its nearest code, and adds them up.

    Args:
      points: all of them.
      centers: of the codes.
      prices: added to the squared distance to a code.
      start: first block.
      blocks: number of blocks.
    """
    rows, weights = (lax.dynamic_slice_in_dim(array, start, blocks) for array in points)

    def step(total: Sums, block):
        vectors, weight = block
        found = scores(vectors, centers)
        nearest, _ = smallest(found + prices)
        hot = jax.nn.one_hot(nearest, len(centers), dtype=jnp.float32) * weight[:, None]
        distance = jnp.take_along_axis(found, nearest[:, None], axis=1)[:, 0] + (vectors**2).sum(axis=1)
        added = Sums(
            jnp.matmul(hot.T, vectors, precision=_EXACT),
            hot.sum(axis=0),
            (jnp.maximum(distance, 0) * weight).sum(),
        )
        return jax.tree.map(jnp.add, total, added), None

    zero = Sums(jnp.zeros_like(centers), jnp.zeros(len(centers)), jnp.zeros(()))
    return lax.scan(step, zero, (rows, weights))[0]


@jax.jit
def nearest_codes(
    points: Points, centers: Float[Array, "K D"], prices: Float[Array, "K"]
) -> tuple[Int[Array, "N R"], Float[Array, "N R D"]]:
    """Returns the nearest code of every vector in blocks, and what it leaves
    unexplained: the vector less the center.
    """

    def step(_, vectors):
        nearest, _ = smallest(scores(vectors, centers) + prices)
        return None, (nearest, vectors - centers[nearest])

    return lax.scan(step, None, points.rows)[1]


@functools.partial(jax.jit, static_argnames="sample")
def fill_centers(
    key: jax.Array, points: Points, centers: Float[Array, "K D"], counts: Float[Array, "K"], sample: int
) -> Float[Array, "K D"]:
    """Draws a center for every code without vectors by greedy k-means++.

    Of some vectors, drawn in proportion to the squared distance to the nearest center,
    the one that lowers the sum of these distances most becomes the next center (Arthur
    and Vassilvitskii, 2007).

    Args:
      key: of the draws.
      points: in random order.
      centers: of the codes; those of codes without vectors are not looked at.
      counts: vectors of each code.
      sample: number of blocks that are drawn from, the first ones.
    """
    rows, weight = points.rows[:sample], points.weight[:sample]
    alive = counts > 0

    def from_alive(_, block):
        return None, jnp.where(alive, scores(block, centers), jnp.inf).min(axis=1) + (block**2).sum(axis=1)

    distance = lax.scan(from_alive, None, rows)[1].reshape(-1)
    flat, weight = rows.reshape(-1, rows.shape[-1]), weight.reshape(-1)
    length = (flat**2).sum(axis=1)
    # With no center at all, every vector is as good as any other.
    distance = jnp.where(jnp.isinf(distance), jnp.inf, jnp.maximum(distance, 0) * weight)
    draws = jax.random.uniform(key, (len(centers), _TRIALS))

    def draw(number, state):
        centers, distance = state
        started = jnp.isfinite(distance[0])
        cumulative = jnp.cumsum(jnp.where(started, distance, weight))
        drawn = jnp.searchsorted(cumulative, draws[number] * cumulative[-1], side="right")
        drawn = jnp.minimum(drawn, len(flat) - 1)
        candidates = flat[drawn]
        to_them = length[:, None] + scores(flat, candidates)
        nearer = jnp.minimum(distance[:, None], jnp.maximum(to_them, 0) * weight[:, None])
        nearer = nearer.at[drawn, jnp.arange(_TRIALS)].set(0)  # rounding leaves a little
        best = nearer.sum(axis=0).argmin()
        return centers.at[number].set(candidates[best]), nearer[:, best]

    def step(number, state: tuple[Array, Array]):
        return lax.cond(alive[number], lambda kept: kept, functools.partial(draw, number), state)

    return lax.fori_loop(0, len(centers), step, (centers, distance))[0]
