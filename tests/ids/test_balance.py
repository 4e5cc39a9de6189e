"""Balanced codes: sizes, error, and prices that balance vectors which were not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.ids.balance import Balanced, balanced_codes, balanced_kmeans, balanced_prices, cap_of
from atspeed_jax.ids.kmeans import KMeansConfig, add_up, kmeans, nearest_codes
from atspeed_jax.ids.points import data_mesh, place, unblocked
from atspeed_jax.ids.residual import residual_kmeans

CODES = 8


def crowd(count, seed):
    """Vectors of which half lie in one of 8 clusters."""
    rng = np.random.default_rng(seed)
    cluster = np.where(rng.random(count) < 0.5, 0, rng.integers(8, size=count))
    centers = 3 * np.random.default_rng(9).normal(size=(8, 4))
    return (centers[cluster] + rng.normal(size=(count, 4))).astype(np.float32)


@pytest.fixture(scope="module")
def level():
    points = place(crowd(400, 0), CODES, data_mesh())
    return points, balanced_kmeans(points, CODES, KMeansConfig(), jax.random.key(0))


def largest(codes):
    return np.bincount(codes, minlength=CODES).max() / (len(codes) / CODES)


def test_no_code_has_more_than_its_share(level):
    points, balanced = level
    plain = kmeans(points, CODES, KMeansConfig(), jax.random.key(0))
    unbalanced, left = nearest_codes(points, plain, jnp.zeros(CODES))
    assert largest(unblocked(unbalanced, 400)) > 1.5
    codes, rest = balanced_codes(points, balanced, 400)
    assert largest(codes) <= 1.2
    np.testing.assert_allclose(
        unblocked(rest, 400), unblocked(points.rows, 400) - np.asarray(balanced.centers)[codes], atol=1e-5
    )
    assert (unblocked(rest, 400) ** 2).sum() < 1.6 * (unblocked(left, 400) ** 2).sum()


def test_prices_balance_other_vectors_as_well(level):
    other = place(crowd(400, 1), CODES, data_mesh())
    codes = unblocked(nearest_codes(other, *level[1])[0], 400)
    plain = kmeans(level[0], CODES, KMeansConfig(), jax.random.key(0))
    assert largest(codes) < 0.8 * largest(unblocked(nearest_codes(other, plain, jnp.zeros(CODES))[0], 400))


def test_centers_that_stay_are_balanced_by_prices_alone(level):
    points, balanced = level
    fixed = balanced_prices(points, balanced.centers, moving=False)
    np.testing.assert_array_equal(fixed.centers, balanced.centers)
    assert float(add_up(points, *fixed, 0, 1).counts.max()) <= float(
        add_up(points, balanced.centers, jnp.zeros(CODES), 0, 1).counts.max()
    )


def test_what_does_not_fit_moves_to_the_code_that_costs_least():
    vectors = np.array([[0.0], [0.1], [0.2], [0.4], [5.0], [9.0]], np.float32)
    points = place(vectors, 3, data_mesh())
    codes, _ = balanced_codes(points, Balanced(jnp.array([[0.0], [5.0], [9.0]]), jnp.zeros(3)), 6)
    # At most 2 vectors a code: 0.4 takes the last place of code 1, then 0.2 must go to code 2.
    assert codes.tolist() == [0, 0, 2, 1, 1, 2]


@pytest.mark.parametrize(("count", "codes", "cap"), [(100, 10, 12), (15, 10, 2), (3, 10, 1), (1000, 3, 399)])
def test_the_cap_leaves_room_for_all(count, codes, cap):
    assert cap_of(count, codes) == cap
    assert cap * codes >= count


def test_every_level_is_balanced_and_known_vectors_have_capped_codes():
    vectors = crowd(400, 0)
    books, codes = residual_kmeans(vectors, (CODES, CODES), seed=0, balanced=True)
    assert max(largest(codes[:, 0]), largest(codes[:, 1])) <= 1.2
    assert (books.assign(vectors) == codes).mean() > 0.7
