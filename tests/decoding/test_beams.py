import jax.numpy as jnp

from atspeed_jax.decoding.base import Layout
from atspeed_jax.decoding.beams import (
    LOWEST,
    UNPLACED,
    assign_slots,
    gather_nodes,
    is_finished,
    largest,
    merge_nodes,
    root_beams,
    to_result,
    trie_order,
)
from atspeed_jax.decoding.children import open_children, score_children
from two_levels import IDS, LEVEL_TWO, PROMPT, TRIE, level_two


def test_root_is_the_last_prompt_token():
    root = root_beams(PROMPT, 3)
    assert root.count == 1
    assert root.valid.all()
    assert not root.score.any()
    assert not root.node.any()
    assert root.path.tolist() == [[[2, UNPLACED, UNPLACED]]] * 2


def test_take_and_resize():
    beams = level_two([0, 2, 3], [-1.0, -2.0, -3.0])
    taken = gather_nodes(beams, jnp.array([[2, 0], [1, 1]]))
    assert taken.node.tolist() == [[3, 0], [2, 2]]
    assert taken.path[0, 0].tolist() == [2, 6, 13]
    assert beams.resize(2).node.tolist() == [[0, 2]] * 2
    padded = beams.resize(5)
    assert padded.valid.tolist() == [[True] * 3 + [False] * 2] * 2
    assert padded.tokens.shape == (2, 5, 3)
    assert (padded.score[:, 3:] == LOWEST).all()


def test_the_largest_are_the_valid_ones_whatever_their_score():
    """The least score there is, one below it, and NaN, which comes first; equals in their order."""
    scores = jnp.array([[5.0, LOWEST, -1.0, -jnp.inf, LOWEST, jnp.nan, -1.0]])
    valid = jnp.array([[False, True, True, True, False, True, True]])
    for count in (1, 3, 5, 6, 7, 9):
        index, found = largest(scores, valid, count)
        assert index[0, :5].tolist() == [5, 2, 6, 1, 3][:count]
        assert found.tolist() == [([True] * 5 + [False] * 2)[:count]]


def test_assign_slots_gives_the_first_slots_of_the_level():
    layout = Layout(3, (1, 4, 5))
    placed = assign_slots(level_two([0, 3], [0.0, 0.0]), 2, layout)
    assert placed.path[0].tolist() == [[2, 3, 7], [2, 6, 8]]


def test_a_result_is_sorted_by_score_then_id_and_its_invalid_places_are_empty():
    beams = level_two([0, 1, 2, 3, 0], [-2.0, -1.0, -2.0, -1.0, 5.0], [True, True, True, True, False])
    result = to_result(
        beams,
        target_calls=jnp.array([3, 3]),
        given_up=jnp.zeros(2),
        faulty=jnp.array([0, 2]),
        rounds=jnp.int32(3),
        round_one=None,
    )
    assert result.faulty.tolist() == [0, 2]
    assert result.ids.tolist() == [[1, 3, 0, 2, 0]] * 2
    assert result.valid.tolist() == [[True] * 4 + [False]] * 2
    assert result.score[0, :4].tolist() == [-1, -1, -2, -2]
    assert not result.tokens[:, 4].any()
    assert result.tokens[:, :4].any()


def test_a_prefix_with_one_item_left_is_finished_under_trie_norm():
    beams = level_two([0, 1, 2, 3], [-1.0, -2.0, -3.0, -4.0], [True, True, False, True])
    below = [sum(tuple(row[:2]) == prefix for row in IDS.tolist()) for prefix in LEVEL_TWO]
    assert sorted(set(below)) == [1, 2, 3]
    expected = [[below[n] == 1 and n != 2 for n in range(4)]] * 2
    assert is_finished(TRIE, 2, beams, "trie").tolist() == expected
    assert not is_finished(TRIE, 2, beams, "vocab").any()
    root = root_beams(PROMPT, 3)
    children = score_children(TRIE, 0, root, jnp.zeros((2, 1, 10)), norm="trie")
    assert open_children(TRIE, children, "vocab") is children
    level_one = [sum(row[0] == code for row in IDS.tolist()) for code in (2, 3, 4)]
    assert open_children(TRIE, children, "trie").exists[0, 0].tolist() == [n > 1 for n in level_one]


def test_merged_nodes_are_in_trie_order_with_the_invalid_last():
    some, others = level_two([1, 4], [-1.0, -2.0], [True, False]), level_two([0, 3, 2], [-3.0, -4.0, -5.0])
    order = trie_order(some, others)
    merged = merge_nodes(order, some, others)
    assert merged.node[0].tolist() == [0, 1, 2, 3, 4]
    assert merged.valid[0].tolist() == [True] * 4 + [False]
    assert merged.score[0].tolist() == [-3.0, -1.0, -5.0, -4.0, -2.0]
    assert merged.path[1, :4, 2].tolist() == [10, 11, 12, 13]
