import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.decoding.beams import LOWEST, UNPLACED, Beams, Frontier, root_beams
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import DraftTree, ModelDrafter, draft_tree
from atspeed_jax.decoding.search import Search
from atspeed_jax.decoding.verify import accept, match, verify_tree
from atspeed_jax.items.trie import build_trie
from cases import STEP, Shape, make_batch
from table_model import table_logits

SHAPE = Shape((4, 3, 3), 3, (4, 5), 2, "vocab")  # as in test_draft.py
LAYOUT = Layout(SHAPE.prompt, (1, 4, 5))


@jax.jit
def drafted_and_verified(table, draft, trie, prompt):
    config = SearchConfig(SHAPE.widths, SHAPE.gamma, SHAPE.norm, beams=SHAPE.beams)
    at = jnp.zeros((SHAPE.batch,), jnp.int32)
    cache = STEP.init_cache(SHAPE.batch, LAYOUT.slots)
    search, frontier = Search(trie, prompt, LAYOUT, config), Frontier(root_beams(prompt, 3), at)
    tree, _ = draft_tree(ModelDrafter(STEP), draft, search, frontier, cache, levels=range(3))
    return tree.nodes, verify_tree(STEP, table, search, tree.nodes, row_level=at, cache=cache)[0]


def test_one_call_gives_every_node_the_logits_of_its_sequence():
    rng = np.random.default_rng(0)
    for kind in ("full", "some", "few"):
        batch = make_batch(SHAPE, rng, trie=kind, table="smooth", draft="random")
        nodes, logits = drafted_and_verified(batch.table, batch.draft, batch.trie, batch.prompt)
        expected = table_logits(batch.table)
        assert [logits[level].shape[1] for level in range(3)] == [1, 4, 5]
        for row, prompt in enumerate(batch.sequences()):
            for level in range(3):
                for place in np.flatnonzero(nodes[level].valid[row]):
                    prefix = nodes[level].tokens[row, place, :level].tolist()
                    np.testing.assert_array_equal(
                        logits[level][row, place], expected((*prompt, *prefix)).astype(np.float32)
                    )


def beams_of(nodes, scores, valid):
    shape = (1, len(nodes), 2)
    path = jnp.arange(20, 20 + 2 * len(nodes)).reshape(shape)
    return Beams(
        jnp.zeros(shape, jnp.int32), path, jnp.array([scores], jnp.float32), jnp.array([nodes]), jnp.array([valid])
    )


def test_match_takes_the_targets_score_and_forgets_what_is_no_beam():
    found = beams_of([7, 4, 9, 0], [-1.0, -2.0, -3.0, LOWEST], [True, True, True, False])
    drafted = beams_of([4, 5, 7, 9, 0], [-9.0] * 5, [True, True, True, False, True])
    verified, present = match(found, drafted)
    assert present.tolist() == [[True, True, False, False]]  # node 9 was drafted in an invalid place only
    assert verified.valid.tolist() == [[True, False, True, False, False]]
    assert verified.score[0, jnp.array([0, 2])].tolist() == [-2.0, -1.0]
    np.testing.assert_array_equal(verified.path, drafted.path)


def test_match_of_a_missing_place_leaves_the_first_node_alone():
    """A scatter by argmax would write the score of a beam that is not there, or was not drafted, to node 0."""
    found = beams_of([4, 0, 0], [-2.0, LOWEST, LOWEST], [True, False, False])
    verified, present = match(found, beams_of([4, 5], [-9.0, -9.0], [True, True]))
    assert verified.score[0, 0] == -2.0
    assert verified.valid.tolist() == [[True, False]]
    assert present.tolist() == [[True, False, False]]


# Two codes of two: ids (2, 4), (2, 5), (3, 4), (3, 5); K = 2; a PAD logit of 64 makes every score a logit less 64.
IDS = np.array([[2, 4], [2, 5], [3, 4], [3, 5]])


def logits_of(*rows):
    """[1, N, V] from per-node {token: logit}."""
    table = np.full((1, len(rows), 6), -9.0, np.float32)
    table[..., 0] = 64
    for place, row in enumerate(rows):
        for token, logit in row.items():
            table[0, place, token] = logit
    return jnp.asarray(table)


def walk(ids, drafted, beams, at=0, level_one=None, tolerance=0.0):
    """accept() of one user over L = 2: level 0's logits favour code 3 over 2; `drafted` nodes of level 1."""
    prompt = Prompt(jnp.array([[1]]), jnp.array([[True]]))
    config = SearchConfig((max(2, len(drafted)),), 1, "vocab", beams=beams, tolerance=tolerance)
    tokens = jnp.array([[[2 + node, 0] for node in drafted]])
    valid = jnp.ones((1, len(drafted)), bool)
    level = Beams(tokens, jnp.full_like(tokens, UNPLACED), jnp.zeros(valid.shape), jnp.array([drafted]), valid)
    root = root_beams(prompt, 2)
    logits = {0: logits_of({2: -2.0, 3: -1.0}), 1: level_one}
    settled = root if at == 0 else level.resize(beams)
    search = Search.of(build_trie(ids), prompt, config)
    walked = accept(search, DraftTree({0: root, 1: level}, {}), logits, Frontier(settled, jnp.array([at])))
    assert not walked.faulty.any()
    return walked.frontier.beams, walked.frontier.level, walked.given_up, walked.record


def test_accepts_a_level_when_every_beam_was_drafted():
    both = logits_of({4: -1.0, 5: -5.0}, {4: -3.0, 5: -1.0})
    settled, at, _, record = walk(IDS, [0, 1], 2, level_one=both)
    assert at.tolist() == [2]
    assert record.accepted.tolist() == [[True]]
    assert record.coverage.tolist() == [[1.0]]
    assert settled.node.tolist() == [[0, 3]]  # (2, 4) with -2 - 1, (3, 5) with -1 - 1
    assert (settled.score + 128).tolist() == [[-3.0, -2.0]]


def test_stops_at_the_first_level_with_a_beam_that_was_not_drafted():
    settled, at, _, record = walk(IDS, [1], 2, level_one=logits_of({4: -3.0, 5: -1.0}))
    assert at.tolist() == [1]
    assert record.reached.tolist() == [[True]]
    assert record.accepted.tolist() == [[False]]
    assert record.coverage.tolist() == [[0.5]]
    assert settled.node.tolist() == [[0, 1]]
    assert (settled.score + 64).tolist() == [[-2.0, -1.0]]


def test_missing_places_count_as_drafted():
    settled, at, _, record = walk(IDS[:2], [0], 3, level_one=logits_of({4: -1.0, 5: -5.0}))
    assert at.tolist() == [2]
    assert record.accepted.tolist() == [[True]]
    assert record.coverage.tolist() == [[1.0]]
    assert settled.valid.tolist() == [[True, True, False]]
    assert settled.node[0, :2].tolist() == [0, 1]


@pytest.mark.parametrize(("at", "after"), [(1, 2), (2, 2)])
def test_rows_start_at_their_own_level_and_finished_rows_stay(at, after):
    both = logits_of({4: -1.0, 5: -5.0}, {4: -3.0, 5: -1.0})
    settled, level, _, record = walk(IDS, [0, 1], 2, at=at, level_one=both)
    assert level.tolist() == [after]
    assert not record.reached.any()
    assert not record.accepted.any()
    assert settled.node.tolist() == ([[0, 3]] if at == 1 else [[0, 1]])


@pytest.mark.parametrize(("tolerance", "goes_on"), [(0.26, False), (0.27, True)])
def test_tolerance_goes_on_without_a_beam_of_little_probability(tolerance, goes_on):
    """Code 2 has e^-2 / (e^-2 + e^-1) = 0.2689 of the two beams' probability, and was not drafted."""
    settled, at, lost, record = walk(IDS, [1], 2, level_one=logits_of({4: -3.0, 5: -1.0}), tolerance=tolerance)
    assert at.tolist() == [1 + goes_on]
    assert record.accepted.tolist() == [[goes_on]]
    assert record.reached.tolist() == [[True]]
    assert record.coverage.tolist() == [[0.5]]
    np.testing.assert_allclose(lost, [0.26894 * goes_on], atol=1e-5)
    assert settled.node.tolist() == ([[2, 3]] if goes_on else [[0, 1]])  # (3, 4) and (3, 5): code 2 is given up
