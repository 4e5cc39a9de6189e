import jax.numpy as jnp
import numpy as np

from atspeed_jax.models.attention import attend
from atspeed_jax.shapes import SlotMask


def test_attention_over_prompt_and_path_is_attention_over_the_whole_mask():
    rng = np.random.default_rng(4)
    query = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = rng.normal(size=(2, 2, 9, 2, 6)).astype(np.float32)
    paths = [[-1, -1], [4, -1], [5, -1], [4, 7], [8, 5]]
    mask = SlotMask(jnp.asarray(rng.random((2, 5, 4)) < 0.6), jnp.asarray([paths, paths[::-1]]))
    whole = SlotMask(mask.dense(9), jnp.zeros((2, 5, 0), int))
    found, want = (attend(query, keys, values, seen_by, None) for seen_by in (mask, whole))
    seen = np.asarray(mask.dense(9)).any(-1)  # what sees nothing means nothing
    assert seen.sum() >= 9
    np.testing.assert_allclose(found[seen], want[seen], atol=1e-6)
