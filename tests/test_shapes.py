import jax.numpy as jnp
import numpy as np

from atspeed_jax.shapes import SlotMask


def test_a_mask_of_two_parts_as_one():
    prompt = jnp.array([[[True, False], [False, False], [True, True]]])
    whole = SlotMask(prompt, jnp.array([[[-1, -1], [3, -1], [5, 2]]])).dense(6)
    assert [np.flatnonzero(seen).tolist() for seen in whole[0]] == [[0], [3], [0, 1, 2, 5]]
    assert SlotMask(prompt, jnp.array([[[-1, -1], [3, -1], [-1, 2]]])).sees_something().tolist() == [[True] * 3]
    nothing_behind = SlotMask(prompt, jnp.zeros((1, 3, 0), int))
    assert nothing_behind.sees_something().tolist() == [[True, False, True]]
    np.testing.assert_array_equal(nothing_behind.dense(2), prompt)


def test_whole_sequences_see_the_real_tokens_up_to_themselves():
    mask = SlotMask.causal(jnp.array([[False, True, True], [True, True, True]]))
    assert mask.prompt[0].astype(int).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask.prompt[1].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask.path.shape == (2, 3, 0)
