import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.base import DecodeError, Layout
from atspeed_jax.decoding.beams import LOWEST, UNPLACED, Beams, assign_slots
from atspeed_jax.decoding.budget import compact, lead, read_nodes, within_budget
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.shapes import SlotMask, StepInput
from cases import SHAPES, make_batch
from properties import check_user
from table_model import TableStep, table_logits

LAYOUT = Layout(2, (1, 3, 3))
CONFIG = SearchConfig((3, 3), 2, "vocab", beams=1)
SHAPE = next(shape for shape in SHAPES if shape.budget)


@dataclasses.dataclass(frozen=True)
class MeasuredStep(TableStep):
    """Notes how many tokens a call reads, when it is traced."""

    widths: ClassVar[list[int]] = []

    def __call__(self, params, inputs, cache, *, n_out):
        self.widths.append(inputs.tokens.shape[1])
        return super().__call__(params, inputs, cache, n_out=n_out)


def level(number, scores, parents, valid=(True, True, True)):
    """Three placed nodes of a level; parents: places at the level above."""
    above = jnp.asarray(parents) + LAYOUT.offset[number - 1]
    path = jnp.full((1, 3, 3), UNPLACED).at[0, :, number - 1].set(above)
    nodes = Beams(
        jnp.zeros((1, 3, 3), jnp.int32), path, jnp.array([scores], jnp.float32), jnp.arange(3)[None], jnp.array([valid])
    )
    return assign_slots(nodes, number, LAYOUT)


def kept(nodes, budget, at=0):
    config = dataclasses.replace(CONFIG, budget=budget)
    found = within_budget(nodes, jnp.array([at]), LAYOUT, config)
    return {number: found[number].valid[0].tolist() for number in nodes}


def test_the_largest_leads_of_all_levels_are_read_the_shallower_first():
    nodes = {
        1: level(1, [-1.0, -5.0, -2.0], [0, 0, 0]),
        2: level(2, [-2.0, -1.5, -6.0], [2, 0, 1]),
    }
    assert kept(nodes, 2) == {1: [True, False, False], 2: [False, True, False]}
    assert kept(nodes, 3) == {1: [True, False, True], 2: [False, True, False]}  # a lead of -1 twice: level 1 first
    assert kept(nodes, 4) == {1: [True, False, True], 2: [True, True, False]}
    assert kept(nodes, 6) == kept(nodes, None) == {1: [True] * 3, 2: [True] * 3}


def test_settled_beams_are_always_read_and_do_not_count():
    nodes = {
        1: level(1, [-9.0, -8.0, -7.0], [0, 0, 0]),
        2: level(2, [-9.5, -8.5, -7.5], [0, 1, 2]),
    }
    assert kept(nodes, 1, at=1) == {1: [True] * 3, 2: [False, False, True]}


def test_a_node_is_never_read_before_its_parent():
    nodes = {
        1: level(1, [-1.0, -5.0, -2.0], [0, 0, 0]),
        2: level(2, [-1.1, -1.2, -9.0], [1, 0, 0]),  # the first scores above its own parent
    }
    assert kept(nodes, 3) == {1: [True, False, True], 2: [False, True, False]}
    assert kept(nodes, 4) == {1: [True, False, True], 2: [False, True, True]}
    assert kept(nodes, 5) == {1: [True, True, True], 2: [False, True, True]}


def test_a_deep_level_gets_its_share_however_low_its_scores_are():
    nodes = {
        1: level(1, [-1.0, -2.0, -4.0], [0, 0, 0]),
        2: level(2, [-50.0, -51.0, -55.0], [0, 0, 1]),
    }
    # Leads 0, -1, -3, and half the distances below: 0, -0.5, -2.5.
    assert kept(nodes, 3) == {1: [True, False, False], 2: [True, True, False]}
    assert kept(nodes, 5) == {1: [True, True, False], 2: [True, True, True]}
    # From level 1 on, whose beams are settled, level 2 is the first level below.
    assert kept(nodes, 2, at=1) == {1: [True, True, True], 2: [True, True, False]}


@pytest.mark.parametrize(("beams", "expected"), [(1, [0, -2, -3, -5]), (2, [3, 1, 0, -2]), (4, [5, 3, 2, 0])])
def test_the_threshold_is_the_score_of_rank_three_halves_k(beams, expected):
    score, everyone = jnp.array([[0.0, -2.0, -3.0, -5.0, 9.0]]), jnp.array([[True, True, True, True, False]])
    free = jnp.full((1, 5), jnp.inf)
    for depth in (1, 2):
        found = lead(score, everyone, jnp.array([[depth]]), free, beams=beams)
        np.testing.assert_array_equal(found[0, :4], np.array(expected) / depth)


def test_invalid_nodes_are_not_made_valid():
    nodes = {1: level(1, [-1.0, LOWEST, LOWEST], [0, 0, 0], [True, False, False])}
    assert kept(nodes, 2) == {1: [True, False, False]}


def test_invalid_nodes_take_no_place_of_valid_ones_whatever_their_score():
    nodes = {1: level(1, [9.0, LOWEST, LOWEST], [0, 0, 0], [False, False, True])}
    assert kept(nodes, 2) == {1: [False, False, True]}


def test_compacted_nodes_are_found_again():
    valid = jnp.array([[False, True, False, True, True], [True, False, False, False, False]])
    numbers = jnp.arange(10).reshape(2, 5)
    mask = SlotMask(numbers, numbers, numbers[..., None], 4)
    read = StepInput(numbers, numbers, numbers, mask, first_slot=0)
    compacted, place = compact(read, valid, 3)
    assert compacted.first_slot is None
    assert compacted.tokens.shape == (2, 3)
    assert compacted.mask.prompt.shape == (2, 3, 4)
    mask = compacted.mask
    for part in (compacted.tokens, mask.begin, mask.end, mask.path[..., 0]):
        again = np.take_along_axis(part, np.asarray(place), 1)
        np.testing.assert_array_equal(again[valid], numbers[valid])


def test_calls_read_no_more_than_the_budget():
    """Round 1 the prompt and M nodes, later rounds the K settled beams and M nodes."""
    batch = make_batch(SHAPE, np.random.default_rng(0), trie="some", table="smooth", draft="random")
    MeasuredStep.widths.clear()
    jax.eval_shape(lambda: batch.decode(MeasuredStep()))
    first, *later = MeasuredStep.widths  # a later round is traced for each size of its batch
    assert first == SHAPE.prompt + SHAPE.budget
    assert set(later) == {SHAPE.beams + SHAPE.budget}


def test_a_budget_costs_calls_and_never_items():
    batch = make_batch(SHAPE, np.random.default_rng(0), trie="some", table="smooth", draft="random")
    result, wide = batch.speculative(TableStep()), batch.speculative(TableStep(), budget=None)
    np.testing.assert_array_equal(result.ids, wide.ids)
    assert (result.target_calls >= wide.target_calls).all()


@pytest.mark.parametrize("budget", [4, 12, pytest.param(1000, marks=pytest.mark.slow)])
def test_any_budget_gives_the_list_of_plain_beam_search(budget):
    batch = make_batch(SHAPE, np.random.default_rng(1), trie="full", table="ladder", draft="near")
    result = batch.speculative(TableStep(), budget=budget)
    for row, prompt in enumerate(batch.sequences()):
        expected = oracle.beam_search(batch.ids, prompt, table_logits(batch.table), SHAPE.beams, SHAPE.norm)
        check_user(batch, result, row, expected.items)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"budget": 3}, "budget=3: expected at least K=4"), ({"budget": 8, "mode": "relaxed"}, "would change the law")],
)
def test_budgets_that_cannot_work(change, message):
    with pytest.raises(DecodeError, match=message):
        SearchConfig((4,), 1, "vocab", beams=4, **change).resolved_widths(2)


FOUR = SearchConfig((5, 8, 12), 3, "vocab", beams=4)


def test_nodes_that_a_call_reads():
    assert read_nodes(FOUR) == (25, 24)
    assert read_nodes(dataclasses.replace(FOUR, gamma=1)) == (5, 24)
    assert read_nodes(dataclasses.replace(FOUR, budget=10)) == (10, 14)
    assert read_nodes(dataclasses.replace(FOUR, widths=(2, 3, 12))) == (20, 20)  # a level has K slots at least
    assert read_nodes(SearchConfig((), 1, "vocab", beams=4)) == (0, 4)
