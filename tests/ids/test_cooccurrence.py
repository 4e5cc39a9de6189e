import numpy as np
import pytest

from atspeed_jax.ids.cooccurrence import cooccurrence_vectors
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.tables import Interactions


def log_of(*rows):
    return Interactions(*(np.array(column) for column in zip(*rows, strict=True)))


def test_items_of_the_same_users_are_near_and_only_training_counts():
    train = [(user, item, 0) for user in range(8) for item in ((0, 1) if user % 2 else (2, 3))]
    log = log_of(*train, (0, 1, 2), (0, 4, 1))
    vectors = cooccurrence_vectors(log, 5, 3, seed=0)
    near = vectors @ vectors.T
    np.testing.assert_allclose(
        near[:4, :4], [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]], atol=1e-4
    )
    assert not vectors[4].any()
    np.testing.assert_array_equal(vectors, cooccurrence_vectors(log_of(*train), 5, 3, seed=0))


def test_a_repeated_pair_counts_once():
    rows = [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 2, 0)]
    one, two = (cooccurrence_vectors(log_of(*rows, *more), 3, 2, seed=0) for more in ([], [(0, 0, 0)] * 5))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_no_training_interaction_is_refused():
    with pytest.raises(IdsError, match="no training interactions"):
        cooccurrence_vectors(log_of((0, 0, 1)), 1, 2, seed=0)
