import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models import attention as module
from atspeed_jax.shapes import SlotMask


@pytest.mark.parametrize("most_slots", [0, 5])
def test_attention_over_prompt_and_path_is_attention_over_the_whole_mask(monkeypatch, most_slots):
    monkeypatch.setattr(module, "MOST_SLOTS", most_slots)
    rng = np.random.default_rng(4)
    query = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = rng.normal(size=(2, 2, 2, 9, 6)).astype(np.float32)
    paths = [[-1, -1], [4, -1], [5, -1], [4, 7], [8, 5]]
    mask = SlotMask(jnp.asarray(rng.random((2, 5, 4)) < 0.6), jnp.asarray([paths, paths[::-1]]))
    whole = SlotMask(mask.dense(9), jnp.zeros((2, 5, 0), int))
    found, want = (module.attend(query, keys, values, seen_by, None) for seen_by in (mask, whole))
    seen = np.asarray(mask.dense(9)).any(-1)  # what sees nothing means nothing
    assert seen.sum() >= 9
    np.testing.assert_allclose(found[seen], want[seen], atol=1e-6)


@pytest.mark.parametrize(("slots", "gather", "gathers"), [(256, False, False), (256, True, True), (257, False, True)])
def test_paths_are_gathered_in_wide_trees_alone(slots, gather, gathers):
    """Where the tree is wider, a product with all of its slots takes longer than a gather."""
    query, store = jnp.zeros((1, 2, 2, 4)), jnp.zeros((1, 1, 3 + slots, 4))
    mask = SlotMask(jnp.ones((1, 2, 3), bool), jnp.full((1, 2, 1), 3))
    traced = jax.make_jaxpr(lambda *arrays: module.attend(*arrays, None, gather=gather))(query, store, store, mask)
    assert (" gather[" in str(traced)) == gathers
