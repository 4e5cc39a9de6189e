"""Residual k-means on devices, against the small one in float64 and scikit-learn."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from atspeed_jax.ids.residual import residual_kmeans
from atspeed_jax.items import quantize


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(3)
    return (2 * rng.normal(size=(20, 6))[rng.integers(20, size=500)] + rng.normal(size=(500, 6))).astype(np.float32)


def test_the_error_is_that_of_the_oracles(vectors):
    lines = []
    books, codes = residual_kmeans(vectors, (16, 16), seed=0, say=lines.append)
    np.testing.assert_array_equal(codes, books.assign(vectors))
    error = ((vectors - books.reconstruct(codes)) ** 2).sum()
    left = vectors.astype(np.float64)
    for level in range(2):
        peer = KMeans(16, n_init=1, random_state=level).fit(left)
        left = left - peer.cluster_centers_[peer.labels_]
    assert error < 1.04 * (left**2).sum()
    small = quantize.residual_kmeans(vectors, levels=2, codes=16, iterations=50, seed=0)
    means = vectors.astype(np.float64)
    for level in range(2):  # the centers of the oracle are the means of what its codes hold
        for code in np.unique(small[:, level]):
            means[small[:, level] == code] -= means[small[:, level] == code].mean(axis=0)
    assert error < 1.04 * (means**2).sum()
    assert lines[1] == f"level 2: 16 codes, mean squared error {error / 500:.4g}"


def test_a_seed_repeats_and_levels_may_differ_in_size(vectors):
    one, two, other = (residual_kmeans(vectors, (4, 8), seed=seed)[0] for seed in (5, 5, 6))
    assert [len(centers) for centers in one.centers] == [4, 8]
    np.testing.assert_array_equal(one.assign(vectors), two.assign(vectors))
    assert (one.assign(vectors) != other.assign(vectors)).any()


def test_twins_share_an_id_and_count_once(vectors):
    twins = np.concatenate([vectors, np.repeat(vectors[:1], 300, axis=0)])
    one, two = (residual_kmeans(rows, (4, 4), seed=0)[0] for rows in (vectors, twins))
    np.testing.assert_array_equal(one.assign(twins), two.assign(twins))
    assert (two.assign(twins)[500:] == two.assign(twins)[0]).all()
