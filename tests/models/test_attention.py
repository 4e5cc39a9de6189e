import jax.numpy as jnp
import numpy as np

from atspeed_jax.models.attention import attend, causal_mask
from atspeed_jax.shapes import SlotMask


def test_attention_over_prompt_and_path_is_attention_over_the_whole_mask():
    rng = np.random.default_rng(4)
    query = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = rng.normal(size=(2, 2, 9, 2, 6)).astype(np.float32)
    paths = [[-1, -1], [4, -1], [5, -1], [4, 7], [8, 5]]
    mask = SlotMask(jnp.asarray(rng.random((2, 5, 4)) < 0.6), jnp.asarray([paths, paths[::-1]]))
    whole = SlotMask(mask.dense(9), jnp.zeros((2, 5, 0), int))
    found, want = attend(query, keys, values, mask), attend(query, keys, values, whole)
    seen = np.asarray(mask.dense(9)).any(-1)  # what sees nothing means nothing
    assert seen.sum() >= 9
    np.testing.assert_allclose(found[seen], want[seen], atol=1e-6)


def test_whole_sequences_see_the_real_tokens_up_to_themselves():
    mask = causal_mask(jnp.array([[False, True, True], [True, True, True]]))
    assert mask.prompt[0].astype(int).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask.prompt[1].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask.path.shape == (2, 3, 0)
