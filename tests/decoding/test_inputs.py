import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import Layout
from atspeed_jax.decoding.beams import (
    assign_slots,
)
from atspeed_jax.decoding.inputs import concatenate_inputs, level_input, prompt_input
from two_levels import LEVEL_TWO, PROMPT, level_two


def test_prompt_input_is_causal_over_real_tokens():
    inputs = prompt_input(PROMPT)
    assert inputs.positions.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert inputs.slots.tolist() == [[0, 1, 2]] * 2
    assert inputs.mask.prompt[0].astype(int).tolist() == [[0] * 3, [0] * 3, [0, 0, 1]]
    assert inputs.mask.prompt[1].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert inputs.mask.path.shape == (2, 3, 0)


def test_level_input_sees_prompt_and_path_and_idle_rows_write_nowhere():
    layout = Layout(3, (1, 4, 5))
    beams = assign_slots(level_two([0, 3], [0.0, 0.0]), 2, layout)
    inputs = level_input(beams, 2, PROMPT, layout, jnp.array([2, 3]))
    assert inputs.tokens.tolist() == [[LEVEL_TWO[0][1], LEVEL_TWO[3][1]]] * 2
    assert inputs.positions.tolist() == [[2, 2], [4, 4]]  # the last prompt token stands at 0 and at 2
    assert inputs.slots.tolist() == [[7, 8], [12, 12]]  # user 1 is past this level: slot S
    seen = inputs.mask.dense(layout.slots)
    assert [np.flatnonzero(m).tolist() for m in seen[0]] == [[2, 3, 7], [2, 6, 8]]
    assert [np.flatnonzero(m).tolist() for m in seen[1]] == [[0, 1, 2, 3, 7], [0, 1, 2, 6, 8]]


def test_concatenated_inputs_are_read_one_after_the_other():
    layout = Layout(3, (1, 4, 5))
    first = prompt_input(PROMPT)
    second = level_input(assign_slots(level_two([0, 3], [0.0, 0.0]), 2, layout), 2, PROMPT, layout, jnp.array([0, 0]))
    both = concatenate_inputs(first, second)
    assert both.tokens.shape == (2, 5)
    for part, seen in ((first, both.mask.dense(layout.slots)[:, :3]), (second, both.mask.dense(layout.slots)[:, 3:])):
        np.testing.assert_array_equal(seen, part.mask.dense(layout.slots))
    np.testing.assert_array_equal(both.slots[:, 3:], second.slots)
