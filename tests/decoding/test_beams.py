import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding import beams as B
from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.items.trie import TrieCapacity, build_trie

IDS = np.array(list(itertools.product((2, 3, 4), (5, 6), (7, 8, 9))))
IDS = np.delete(IDS, [1, 4, 5, 12, 13, 14], axis=0)  # so that nodes have 1, 2 and 3 children; (4, 5) is gone
CAPACITY = TrieCapacity((4, 7, 20), (3, 2, 4))
TRIE = build_trie(IDS, CAPACITY)
PROMPT = Prompt(jnp.array([[0, 0, 1], [1, 5, 7]]), jnp.array([[False, False, True], [True, True, True]]))
LEVEL_TWO = sorted({tuple(row[:2].tolist()) for row in IDS})  # 5 prefixes


def level_two(nodes, scores, valid=None):
    """Beams of depth 2, the same for two users."""
    tokens = [[*LEVEL_TWO[n], 0] for n in nodes]
    path = [[2, 3 + n, 10 + n] for n in nodes]
    one = B.Beams(
        jnp.array(tokens),
        jnp.array(path),
        jnp.array(scores, jnp.float32),
        jnp.array(nodes),
        jnp.array(valid if valid is not None else [True] * len(nodes)),
    )
    return jax.tree.map(lambda x: jnp.stack([x, x]), one)


def test_root_is_the_last_prompt_token():
    root = B.root(PROMPT, 3)
    assert root.count == 1
    assert root.valid.all()
    assert not root.score.any()
    assert not root.node.any()
    assert root.path.tolist() == [[[2, B.UNPLACED, B.UNPLACED]]] * 2


def test_take_and_resize():
    beams = level_two([0, 2, 3], [-1.0, -2.0, -3.0])
    taken = beams.take(jnp.array([[2, 0], [1, 1]]))
    assert taken.node.tolist() == [[3, 0], [2, 2]]
    assert taken.path[0, 0].tolist() == [2, 6, 13]
    assert beams.resize(2).node.tolist() == [[0, 2]] * 2
    padded = beams.resize(5)
    assert padded.valid.tolist() == [[True] * 3 + [False] * 2] * 2
    assert padded.tokens.shape == (2, 5, 3)
    assert (padded.score[:, 3:] == B.LOWEST).all()


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_children_and_their_log_probabilities(norm):
    beams = level_two([0, 3, 4], [0.0, 0.0, 0.0], [True, True, False])
    logits = np.random.default_rng(0).normal(size=(2, 3, 10)).astype(np.float32)
    children = B.children_of(TRIE, 2, beams, jnp.asarray(logits), norm)
    assert children.edge.shape == (2, 3, 4)
    for user, place in itertools.product(range(2), range(2)):
        prefix = LEVEL_TWO[beams.node[user, place]]
        want = [row for row in range(len(IDS)) if tuple(IDS[row, :2]) == prefix]
        exists = np.asarray(children.exists[user, place])
        assert np.asarray(children.edge[user, place])[exists].tolist() == want
        tokens = IDS[want, 2]
        assert np.asarray(children.token[user, place])[exists].tolist() == tokens.tolist()
        row = np.exp(np.float64(logits[user, place]))
        total = row.sum() if norm == "vocab" else row[tokens].sum()
        np.testing.assert_allclose(children.log_prob[user, place][exists], np.log(row[tokens] / total), atol=1e-5)
    assert not children.exists[:, 2].any()  # an invalid node has no children
    assert (np.asarray(children.log_prob)[~np.asarray(children.exists)] == B.LOWEST).all()


@pytest.mark.parametrize("norm", ["vocab", "trie"])
def test_a_token_that_the_vocabulary_lacks_is_no_finite_score(norm):
    beams = level_two([0, 3], [0.0, 0.0])
    enough = B.children_of(TRIE, 2, beams, jnp.zeros((2, 2, 10)), norm)
    assert not B.not_finite(enough).any()
    assert B.not_finite(B.children_of(TRIE, 2, beams, jnp.zeros((2, 2, 8)), norm)).all()  # of 7, 8, 9 one is left


def test_best_keeps_trie_order_puts_invalid_last_and_breaks_ties_by_order():
    """Against sorting in Python, over scores of few values."""
    rng = np.random.default_rng(1)
    best = jax.jit(B.best, static_argnums=(1, 4))
    children_of = jax.jit(B.children_of, static_argnums=(1, 4))
    for _ in range(20):
        beams = level_two([0, 1, 2, 4], -rng.integers(0, 3, 4).astype(float), rng.random(4) < 0.8)
        logits = -rng.integers(0, 3, (2, 4, 10)).astype(np.float32)
        logits[..., 0] = 64  # alone in the log-sum-exp, so that scores are exact
        children = children_of(TRIE, 2, beams, jnp.asarray(logits), "vocab")
        for count in (1, 4, 20):  # up to more than there are places
            kept = jax.tree.map(np.asarray, best(TRIE, 2, beams, children, count))
            assert kept.count == count
            for user in range(2):
                candidates = [
                    (float(beams.score[user, n]) + float(logits[user, n, IDS[row, 2]]) - 64, row)
                    for n in range(4)
                    if beams.valid[user, n]
                    for row in range(len(IDS))
                    if tuple(IDS[row, :2]) == LEVEL_TWO[beams.node[user, n]]
                ]
                want = sorted(sorted(candidates, key=lambda c: (-c[0], c[1]))[:count], key=lambda c: c[1])
                assert kept.valid[user].tolist() == [True] * len(want) + [False] * (count - len(want))
                assert kept.node[user, : len(want)].tolist() == [row for _, row in want]
                assert kept.score[user, : len(want)].tolist() == [score for score, _ in want]
                np.testing.assert_array_equal(kept.tokens[user, : len(want)], IDS[[row for _, row in want]])
                for place, (_, row) in enumerate(want):  # the path is the parent's
                    parent = LEVEL_TWO.index(tuple(IDS[row, :2].tolist()))
                    assert kept.path[user, place].tolist() == [2, 3 + parent, 10 + parent]


def test_the_largest_are_the_valid_ones_whatever_their_score():
    """The least score there is, one below it, and NaN, which comes first; equals in their order."""
    scores = jnp.array([[5.0, B.LOWEST, -1.0, -jnp.inf, B.LOWEST, jnp.nan, -1.0]])
    valid = jnp.array([[False, True, True, True, False, True, True]])
    for count in (1, 3, 5, 6, 7, 9):
        index, found = B.largest(scores, valid, count)
        assert index[0, :5].tolist() == [5, 2, 6, 1, 3][:count]
        assert found.tolist() == [([True] * 5 + [False] * 2)[:count]]


def test_place_gives_the_first_slots_of_the_level():
    layout = Layout(3, (1, 4, 5))
    placed = B.place(level_two([0, 3], [0.0, 0.0]), 2, layout)
    assert placed.path[0].tolist() == [[2, 3, 7], [2, 6, 8]]


def test_prompt_input_is_causal_over_real_tokens():
    inputs = B.prompt_input(PROMPT)
    assert inputs.positions.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert inputs.slots.tolist() == [[0, 1, 2]] * 2
    assert inputs.mask.prompt[0].astype(int).tolist() == [[0] * 3, [0] * 3, [0, 0, 1]]
    assert inputs.mask.prompt[1].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert inputs.mask.path.shape == (2, 3, 0)


def test_level_input_sees_prompt_and_path_and_idle_rows_write_nowhere():
    layout = Layout(3, (1, 4, 5))
    beams = B.place(level_two([0, 3], [0.0, 0.0]), 2, layout)
    inputs = B.level_input(beams, 2, PROMPT, layout, jnp.array([2, 3]))
    assert inputs.tokens.tolist() == [[LEVEL_TWO[0][1], LEVEL_TWO[3][1]]] * 2
    assert inputs.positions.tolist() == [[2, 2], [4, 4]]  # the last prompt token stands at 0 and at 2
    assert inputs.slots.tolist() == [[7, 8], [12, 12]]  # user 1 is past this level: slot S
    seen = inputs.mask.dense(layout.slots)
    assert [np.flatnonzero(m).tolist() for m in seen[0]] == [[2, 3, 7], [2, 6, 8]]
    assert [np.flatnonzero(m).tolist() for m in seen[1]] == [[0, 1, 2, 3, 7], [0, 1, 2, 6, 8]]


def test_join_reads_inputs_one_after_the_other():
    layout = Layout(3, (1, 4, 5))
    first = B.prompt_input(PROMPT)
    second = B.level_input(B.place(level_two([0, 3], [0.0, 0.0]), 2, layout), 2, PROMPT, layout, jnp.array([0, 0]))
    both = B.join(first, second)
    assert both.tokens.shape == (2, 5)
    for part, seen in ((first, both.mask.dense(layout.slots)[:, :3]), (second, both.mask.dense(layout.slots)[:, 3:])):
        np.testing.assert_array_equal(seen, part.mask.dense(layout.slots))
    np.testing.assert_array_equal(both.slots[:, 3:], second.slots)


def test_finalise_sorts_by_score_then_id_and_empties_invalid_places():
    beams = level_two([0, 1, 2, 3, 0], [-2.0, -1.0, -2.0, -1.0, 5.0], [True, True, True, True, False])
    result = B.finalise(beams, jnp.array([3, 3]), jnp.zeros(2), jnp.array([0, 2]), jnp.int32(3), None)
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
    assert B.finished(TRIE, 2, beams, "trie").tolist() == expected
    assert not B.finished(TRIE, 2, beams, "vocab").any()
    root = B.root(PROMPT, 3)
    children = B.children_of(TRIE, 0, root, jnp.zeros((2, 1, 10)), "trie")
    assert B.open_children(TRIE, 0, children, "vocab") is children
    level_one = [sum(row[0] == code for row in IDS.tolist()) for code in (2, 3, 4)]
    assert B.open_children(TRIE, 0, children, "trie").exists[0, 0].tolist() == [n > 1 for n in level_one]


def test_finished_beams_have_one_child_of_probability_one():
    place = next(n for n, prefix in enumerate(LEVEL_TWO) if sum(tuple(row[:2]) == prefix for row in IDS.tolist()) == 1)
    row = next(n for n, one in enumerate(IDS.tolist()) if tuple(one[:2]) == LEVEL_TWO[place])
    beams = level_two([place], [-1.5])
    child = B.best(TRIE, 2, beams, B.only_children(TRIE, 2, beams), 3)
    assert child.valid.tolist() == [[True, False, False]] * 2
    assert child.node[0, 0] == row
    assert child.tokens[0, 0].tolist() == IDS[row].tolist()
    assert child.score[0, 0] == -1.5


def test_merged_nodes_are_in_trie_order_with_the_invalid_last():
    some, others = level_two([1, 4], [-1.0, -2.0], [True, False]), level_two([0, 3, 2], [-3.0, -4.0, -5.0])
    order = B.trie_order(some, others)
    merged = B.merge(order, some, others)
    assert merged.node[0].tolist() == [0, 1, 2, 3, 4]
    assert merged.valid[0].tolist() == [True] * 4 + [False]
    assert merged.score[0].tolist() == [-3.0, -1.0, -5.0, -4.0, -2.0]
    assert merged.path[1, :4, 2].tolist() == [10, 11, 12, 13]
