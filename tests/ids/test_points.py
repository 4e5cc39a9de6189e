import numpy as np

from atspeed_jax.ids.points import data_mesh, place, unblocked


def test_vectors_come_back_in_order_and_padding_weighs_nothing():
    vectors = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32)
    points = place(vectors, 8_192, data_mesh())  # so many codes that a block has few rows
    assert points.rows.shape == (2, 512, 3)
    np.testing.assert_array_equal(unblocked(points.rows, 700), vectors)
    assert float(points.weight.sum()) == 700
    np.testing.assert_array_equal(unblocked(points.weight, 1024)[700:], 0)


def test_few_vectors_need_one_small_block():
    assert place(np.ones((1, 2)), 256, data_mesh()).rows.shape == (1, 1, 2)
    assert place(np.ones((5, 2)), 256, data_mesh()).rows.shape == (1, 8, 2)
