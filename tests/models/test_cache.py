import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.cache import init_cache, write


def test_new_cache_is_finite_zero_of_the_right_shape():
    cache = init_cache(3, 2, 7, 4, 6, jnp.bfloat16)
    for store in (cache.keys, cache.values):
        assert store.shape == (3, 2, 4, 7, 6)
        assert store.dtype == jnp.bfloat16
        assert not store.any()
    assert cache.keys is not cache.values


def test_write_by_slot_and_row():
    store = jnp.zeros((2, 2, 5, 1))
    new = jnp.arange(12.0).reshape(2, 3, 2, 1) + 1
    written = np.asarray(write(store, jnp.array([[4, 0, 2], [1, 2, 3]]), new, None))[..., 0]
    np.testing.assert_array_equal(written[:, 0], [[3, 0, 5, 0, 1], [0, 7, 9, 11, 0]])
    np.testing.assert_array_equal(written[:, 1], [[4, 0, 6, 0, 2], [0, 8, 10, 12, 0]])


def test_slot_beyond_the_last_writes_nowhere():
    store = jnp.arange(2 * 3 * 2.0).reshape(2, 1, 3, 2)
    new = jnp.full((2, 2, 1, 2), -1.0)
    np.testing.assert_array_equal(write(store, jnp.array([[3, 3], [9, 3]]), new, None), store)
    mixed = np.asarray(write(store, jnp.array([[3, 1], [3, 3]]), new, None))
    np.testing.assert_array_equal(mixed[0, :, 1], -np.ones((1, 2)))
    np.testing.assert_array_equal(
        np.delete(mixed.reshape(6, 2), 1, 0), np.delete(np.asarray(store).reshape(6, 2), 1, 0)
    )


@pytest.mark.parametrize("slots", [[[2, 3, 4], [2, 3, 4]], [[2, 6, 4], [6, 6, 6]]], ids=["all", "some nowhere"])
def test_a_range_is_written_as_its_slots_one_by_one(slots):
    rng = np.random.default_rng(5)
    store, new = rng.normal(size=(2, 2, 6, 3)), rng.normal(size=(2, 3, 2, 3))
    one_by_one, at_once = (write(jnp.asarray(store), jnp.array(slots), new, first) for first in (None, 2))
    np.testing.assert_array_equal(at_once, one_by_one)
    assert (np.asarray(at_once) != store).any()


def test_written_again_is_overwritten_and_cast():
    store = write(jnp.zeros((1, 1, 2, 1), jnp.bfloat16), jnp.array([[1]]), jnp.full((1, 1, 1, 1), 1.0), None)
    store = write(store, jnp.array([[1]]), jnp.full((1, 1, 1, 1), 2.0), 1)
    assert store.dtype == jnp.bfloat16
    assert store.ravel().tolist() == [0.0, 2.0]
