import numpy as np

from atspeed_jax.benchmarks.ids import IdsBenchmark, clustered_vectors, measure_ids
from atspeed_jax.ids.rqvae import RqvaeConfig

SMALL = IdsBenchmark(
    width=4, clusters=20, levels=2, codes=8, compared=300, rqvae=RqvaeConfig(hidden=8, latent=4, steps=20, batch=64)
)


def test_a_row_per_method_with_its_error_beside_that_of_scikit_learn():
    lines = []
    rows = measure_ids(SMALL, 300, lines.append)
    assert [row["method"] for row in rows] == ["kmeans", "scikit-learn", "balanced", "rqvae"]
    assert len(lines) == 4
    by_method = {row["method"]: row for row in rows}
    assert by_method["scikit-learn"]["error_ratio"] == 1
    assert by_method["kmeans"]["error_ratio"] < 1.1
    assert by_method["balanced"]["largest_of_mean"] <= 1.2
    assert by_method["kmeans"]["largest_of_mean"] > 1.2
    variance = ((clustered_vectors(SMALL, 300) - clustered_vectors(SMALL, 300).mean(axis=0)) ** 2).sum(axis=1).mean()
    assert all(0 < row["error"] < variance and row["seconds"] > 0 and 0 < row["collided"] <= 1 for row in rows)


def test_large_sets_are_timed_alone():
    (row,) = measure_ids(SMALL, 301, lambda _: None)
    assert (row["method"], row["error_ratio"]) == ("kmeans", None)
    np.testing.assert_array_equal(clustered_vectors(SMALL, 5), clustered_vectors(SMALL, 5))
