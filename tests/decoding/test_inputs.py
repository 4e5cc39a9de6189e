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


def test_inputs_say_where_their_slots_are_a_range():
    layout = Layout(3, (1, 2, 5))
    zero, later = jnp.array([0, 0]), jnp.array([1, 2])
    beams = [assign_slots(level_two([0, 3], [0.0, 0.0]), level, layout) for level in (1, 2)]
    prompt, *levels = (
        prompt_input(PROMPT),
        *(level_input(one, level, PROMPT, layout, zero) for level, one in enumerate(beams, 1)),
    )
    idle = level_input(beams[0], 1, PROMPT, layout, later)
    whole = concatenate_inputs(prompt, *levels)
    ranges = {0: prompt, 3: levels[0], 5: levels[1]}
    for first, one in (*ranges.items(), (0, whole), (3, idle), (3, concatenate_inputs(*levels))):
        assert one.first_slot == first
        slots = np.asarray(one.slots)
        kept = first + np.arange(slots.shape[1])
        assert ((slots == kept) | (slots == layout.slots)).all()
        assert (slots == kept).any()
    # Level 1 is not where the prompt ends, or the order is another.
    assert concatenate_inputs(prompt, levels[1]).first_slot is None
    assert concatenate_inputs(*levels[::-1]).first_slot is None
    assert concatenate_inputs(levels[0].replace(first_slot=None), levels[1]).first_slot is None
    assert concatenate_inputs(levels[0], levels[1].replace(first_slot=None)).first_slot is None
