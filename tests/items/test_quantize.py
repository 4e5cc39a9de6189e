import numpy as np
import pytest

from atspeed_jax.items.quantize import residual_kmeans

SETTINGS = dict(levels=4, codes=8, iterations=20, seed=3)


def vectors(items=300, clusters=8, seed=0):
    rng = np.random.default_rng(seed)
    cluster = rng.integers(clusters, size=items)
    return 10 * rng.normal(size=(clusters, 12))[cluster] + rng.normal(size=(items, 12)), cluster


def explained(points, codes):
    """Share of the variance left unexplained by the groups that the codes make."""
    _, group = np.unique(codes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    means = np.stack([points[group == number].mean(axis=0) for number in range(group.max() + 1)])
    return ((points - means[group]) ** 2).sum() / ((points - points.mean(axis=0)) ** 2).sum()


def test_shape_and_range():
    points, _ = vectors()
    codes = residual_kmeans(points, **SETTINGS)
    assert codes.shape == (300, 4)
    assert codes.dtype == np.int32
    assert codes.min() == 0
    assert codes.max() == 7


def test_first_level_finds_the_clusters():
    points, cluster = vectors()
    codes = residual_kmeans(points, **SETTINGS)
    pairs = {(int(code), int(number)) for code, number in zip(codes[:, 0], cluster, strict=True)}
    assert len(pairs) == 8


def test_every_level_explains_more():
    points, _ = vectors()
    codes = residual_kmeans(points, **SETTINGS)
    left = [explained(points, codes[:, : level + 1]) for level in range(4)]
    assert left == sorted(left, reverse=True)
    assert left[0] < 0.05
    assert left[3] < 0.3 * left[0]


def test_seed_decides():
    points, _ = vectors()
    np.testing.assert_array_equal(residual_kmeans(points, **SETTINGS), residual_kmeans(points.copy(), **SETTINGS))
    assert (residual_kmeans(points, **SETTINGS) != residual_kmeans(points, **(SETTINGS | {"seed": 4}))).any()


def test_equal_vectors_share_their_id_and_different_ones_part():
    points, _ = vectors()
    points[[5, 17]] = points[200]
    codes = residual_kmeans(points, **SETTINGS)
    np.testing.assert_array_equal(codes[[5, 17]], codes[[200, 200]])
    assert len(np.unique(codes, axis=0)) > 250


def test_fewer_items_than_codes():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [5.0, 1.0]])
    codes = residual_kmeans(points, **SETTINGS)
    assert len(np.unique(codes[:, 0])) == 3
    assert codes.max() < 3
    assert (codes[0] == codes[1]).all()
    assert residual_kmeans(points[:1], **SETTINGS).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("points", "change", "message"),
    [
        (np.zeros((0, 3)), {}, r"shape \(0, 3\)"),
        (np.zeros(3), {}, "matrix"),
        (np.array([[0.0], [np.nan]]), {}, "item 1 is not finite"),
        (np.zeros((2, 2)), {"levels": 0}, "levels is 0"),
        (np.zeros((2, 2)), {"codes": 0}, "codes is 0"),
        (np.zeros((2, 2)), {"iterations": -1}, "iterations is -1"),
    ],
)
def test_bad_input(points, change, message):
    with pytest.raises(ValueError, match=message):
        residual_kmeans(points, **(SETTINGS | change))
