import numpy as np

from atspeed_jax.ids.codebooks import Codebooks, distinct_rows, shuffled

CENTERS = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
FINE = np.array([[1, 1], [-1, -1]], np.float32)
NO_PRICES = (np.zeros(3, np.float32), np.zeros(2, np.float32))


def test_a_code_quantizes_what_the_codes_before_it_leave():
    books = Codebooks((CENTERS, FINE), NO_PRICES)
    vectors = np.array([[9.5, 1], [0.5, 9], [-1, -2]])
    ids = books.assign(vectors)
    np.testing.assert_array_equal(ids, [[1, 0], [2, 1], [0, 1]])
    np.testing.assert_array_equal(books.reconstruct(ids), [[11, 1], [-1, 9], [-1, -1]])
    np.testing.assert_array_equal(books.reconstruct(ids, 1), [[10, 0], [0, 10], [0, 0]])


def test_a_price_drives_vectors_to_another_code():
    prices = (np.array([0, 90, 0], np.float32), NO_PRICES[1])
    vectors = np.array([[9.0, 0], [9.9, 0]])
    np.testing.assert_array_equal(Codebooks((CENTERS, FINE), NO_PRICES).assign(vectors)[:, 0], [1, 1])
    # The squared distances to the centers 0 and 1: 81 and 1, 98.01 and 0.01.
    np.testing.assert_array_equal(Codebooks((CENTERS, FINE), prices).assign(vectors)[:, 0], [0, 1])


def test_equal_vectors_are_one():
    rows, place_of = distinct_rows(np.array([[1.0, 0.0], [2, 3], [1, -0.0], [2, 3]]))
    assert len(rows) == 2
    np.testing.assert_array_equal(rows[place_of], [[1, 0], [2, 3], [1, 0], [2, 3]])


def test_an_order_is_a_permutation_by_seed():
    np.testing.assert_array_equal(np.sort(shuffled(9, 3)), np.arange(9))
    np.testing.assert_array_equal(shuffled(9, 3), shuffled(9, 3))
    assert (shuffled(9, 3) != shuffled(9, 4)).any()
