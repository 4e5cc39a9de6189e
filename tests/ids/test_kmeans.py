"""k-means of a level, against scikit-learn and a brute-force assignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from atspeed_jax.ids.kmeans import KMeansConfig, add_up, fill_centers, kmeans, nearest_codes, smallest
from atspeed_jax.ids.points import data_mesh, place, unblocked
from devices import report_of

CLUSTERS = 12


@pytest.fixture(scope="module")
def world():
    """(vectors [600, 8], cluster of each), clusters far apart."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(CLUSTERS, size=600)
    return (5 * rng.normal(size=(CLUSTERS, 8))[cluster] + rng.normal(size=(600, 8))).astype(np.float32), cluster


def brute(vectors, centers):
    """(nearest center, squared distance) in float64."""
    distance = ((vectors[:, None].astype(np.float64) - centers[None]) ** 2).sum(-1)
    return distance.argmin(1), distance.min(1)


def fitted(vectors, codes, config=None, key=0):
    points = place(vectors, codes, data_mesh())
    return points, kmeans(points, codes, config or KMeansConfig(), jax.random.key(key))


def test_known_clusters_are_recovered(world):
    vectors, cluster = world
    points, centers = fitted(vectors, CLUSTERS)
    codes = unblocked(nearest_codes(points, centers, jnp.zeros(CLUSTERS))[0], len(vectors))
    assert adjusted_rand_score(cluster, codes) > 0.95


def test_the_error_is_that_of_scikit_learn_and_the_codes_are_the_nearest(world):
    vectors, _ = world
    points, centers = fitted(vectors, 32)
    sums = add_up(points, centers, jnp.zeros(32), 0, len(points.rows))
    nearest, distance = brute(vectors, np.asarray(centers))
    assert float(sums.error) == pytest.approx(distance.sum(), rel=1e-4)
    found, left = nearest_codes(points, centers, jnp.zeros(32))
    np.testing.assert_array_equal(unblocked(found, 600), nearest)
    np.testing.assert_allclose(unblocked(left, 600), vectors - np.asarray(centers)[nearest], atol=1e-5)
    np.testing.assert_allclose(sums.counts, np.bincount(nearest, minlength=32))
    peer = KMeans(32, n_init=1, random_state=0).fit(vectors)
    assert float(sums.error) < 1.03 * peer.inertia_


def test_minibatches_alone_come_near_the_whole_passes(world):
    vectors = np.random.default_rng(1).permutation(np.repeat(world[0], 20, axis=0))
    vectors = vectors + np.random.default_rng(2).normal(size=vectors.shape).astype(np.float32) / 10
    batches = KMeansConfig(passes=1, minibatch_from=1, minibatch=1, epochs=2)
    points, centers = fitted(vectors, CLUSTERS, batches)
    assert len(points.rows) == 1 or len(points.rows) > 1
    whole = fitted(vectors, CLUSTERS)[1]
    errors = [float(add_up(points, one, jnp.zeros(CLUSTERS), 0, len(points.rows)).error) for one in (centers, whole)]
    assert errors[0] < 1.05 * errors[1]


def test_a_dead_code_takes_a_vector_that_no_center_is_near():
    vectors = np.concatenate([np.zeros((50, 2)), np.full((50, 2), 9.0)]).astype(np.float32)
    points = place(vectors, 2, data_mesh())
    centers, counts = jnp.array([[0.0, 0.0], [500.0, 500.0]]), jnp.array([100.0, 0.0])
    filled = fill_centers(jax.random.key(0), points, centers, counts, 1)
    np.testing.assert_array_equal(filled, [[0, 0], [9, 9]])


def test_more_codes_than_vectors_leave_no_error():
    vectors = np.repeat(np.arange(5, dtype=np.float32)[:, None], 3, axis=1)
    points, centers = fitted(vectors, 16)
    assert np.isfinite(centers).all()
    assert float(add_up(points, centers, jnp.zeros(16), 0, 1).error) == 0


def test_of_equal_values_the_first_is_the_smallest():
    places, low = smallest(jnp.array([[3.0, 1.0, 1.0], [2.0, 2.0, 2.0], [5.0, 4.0, 0.0]]))
    np.testing.assert_array_equal(places, [1, 0, 2])
    np.testing.assert_array_equal(low, [1, 2, 0])


def test_several_devices_find_the_centers_of_one():
    one, four = (report_of("ids_devices.py", devices) for devices in (1, 4))
    assert (one["devices"], four["devices"]) == (1, 4)
    assert four["shards"] == 4
    assert one["ids"] == four["ids"]
    np.testing.assert_allclose(one["centers"], four["centers"], atol=1e-4)
