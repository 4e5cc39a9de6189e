import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.base import Layout
from atspeed_jax.decoding.beams import LOWEST, UNPLACED, Beams, Frontier, root_beams
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter, PopularityDrafter, draft_tree
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.trie import build_trie, popularity_prior
from cases import STEP, TRIES, Shape, make_batch
from table_model import table_logits

SHAPE = Shape((4, 3, 3), 3, (4, 5), 2, "vocab")
LAYOUT = Layout(SHAPE.prompt, (1, 4, 5))


@functools.partial(jax.jit, static_argnames=("drafter", "gamma"))
def first_tree(drafter, params, trie, prompt, gamma):
    config = SearchConfig(SHAPE.widths, gamma, SHAPE.norm, beams=SHAPE.beams)
    at = jnp.zeros((SHAPE.batch,), jnp.int32)
    cache = drafter.init_cache(SHAPE.batch, LAYOUT.slots)
    levels = range(min(gamma + 1, 3))
    search, frontier = Search(trie, prompt, LAYOUT, config), Frontier(root_beams(prompt, 3), at)
    return draft_tree(drafter, params, search, frontier, cache, levels=levels)[0].nodes


def expected_tree(batch, prompt, gamma):
    """The widths' best prefixes of each drafted level, in trie order."""
    trie, propose = oracle.dict_trie(batch.ids), batch.propose()
    kept, tree = [((), 0.0)], {}
    for level in range(1, min(gamma, 2) + 1):
        candidates = [((*p, t), s + d) for p, s in kept for t, d in propose(trie, prompt, p).items()]
        kept, _ = oracle.cut(candidates, SHAPE.widths[level - 1])
        tree[level] = sorted(kept)
    return tree


@pytest.mark.parametrize("gamma", [1, 2])
def test_first_tree_holds_the_best_prefixes_by_draft_score(gamma):
    rng = np.random.default_rng(gamma)
    for kind in TRIES:
        batch = make_batch(SHAPE, rng, trie=kind, table="coarse", draft="random")
        nodes = first_tree(ModelDrafter(STEP), batch.draft, batch.trie, batch.prompt, gamma)
        assert sorted(nodes) == list(range(gamma + 1))
        for row, prompt in enumerate(batch.sequences()):
            for level, want in expected_tree(batch, prompt, gamma).items():
                beams = jax.tree.map(lambda x, row=row: np.asarray(x[row]), nodes[level])
                assert len(beams.valid) == LAYOUT.capacity[level]
                assert beams.valid.sum() == len(want)
                assert [tuple(t[:level].tolist()) for t in beams.tokens[beams.valid]] == [prefix for prefix, _ in want]
                assert beams.score[beams.valid].tolist() == [score for _, score in want]
                assert beams.path[:, level].tolist() == list(
                    range(LAYOUT.offset[level], LAYOUT.offset[level] + LAYOUT.capacity[level])
                )
        last = jax.tree.map(np.asarray, nodes[gamma])
        if gamma == 2:  # a node's path leads through its parent's slot
            slot = last.path[..., 1] - LAYOUT.offset[1]
            parents = np.take_along_axis(np.asarray(nodes[1].tokens[..., 0]), slot, 1)
            np.testing.assert_array_equal(parents[last.valid], last.tokens[..., 0][last.valid])


@functools.partial(jax.jit, static_argnames="gamma")
def later_tree(params, trie, prompt, settled, at, gamma):
    config = SearchConfig(SHAPE.widths, gamma, SHAPE.norm, beams=SHAPE.beams)
    drafter = ModelDrafter(STEP)
    cache = drafter.init_cache(SHAPE.batch, LAYOUT.slots)
    search = Search(trie, prompt, LAYOUT, config)
    return draft_tree(drafter, params, search, Frontier(settled, at), cache, levels=range(1, 3))


def test_rows_put_settled_beams_at_their_level_and_nothing_below():
    batch = make_batch(SHAPE, np.random.default_rng(3), trie="full", table="coarse", draft="random")
    batch_size, beams = SHAPE.batch, SHAPE.beams
    at = jnp.array([1, 2, 3, 1, 2, 3, 1, 2])
    node = jnp.where(at == 1, 0, 4)[:, None] + jnp.arange(beams)  # any three nodes of their level
    tokens = (
        jnp.zeros((batch_size, beams, 3), jnp.int32).at[..., 0].set(2 + jnp.where(at == 1, jnp.arange(3)[:, None], 1).T)
    )
    settled = Beams(
        tokens,
        jnp.full_like(tokens, UNPLACED),
        jnp.zeros((batch_size, beams)) - jnp.arange(3),
        node,
        jnp.ones((batch_size, beams), bool),
    )
    tree, cache = later_tree(batch.draft, batch.trie, batch.prompt, settled, at, 2)
    untouched = STEP.init_cache(batch_size, LAYOUT.slots)
    first, second = tree.nodes[1], tree.nodes[2]
    assert first.count == beams
    assert second.count == LAYOUT.capacity[2]
    for row, level in enumerate(at.tolist()):
        assert first.valid[row].all() if level == 1 else not first.valid[row].any()
        written = np.flatnonzero(cache[row] != untouched[row]).tolist()
        if level == 1:
            np.testing.assert_array_equal(first.score[row], settled.score[row])
            assert second.valid[row].all()
            assert written == [5, 6, 7]
        elif level == 2:
            np.testing.assert_array_equal(second.node[row, :beams], settled.node[row])
            assert second.valid[row].tolist() == [True] * beams + [False] * (second.count - beams)
            assert second.path[row, :beams, 2].tolist() == [9, 10, 11]
            assert written == []
        else:
            assert not second.valid[row].any()
            assert written == []


def test_popularity_drafter_reads_the_prior_of_each_edge():
    ids = np.array([[2, 5], [2, 6], [3, 5]])
    trie = build_trie(ids)
    prior = popularity_prior(trie, ids, np.array([2, 0, 5]))
    drafter = PopularityDrafter()
    nodes = Beams(
        jnp.zeros((1, 3, 2), jnp.int32),
        jnp.zeros((1, 3, 2), jnp.int32),
        jnp.zeros((1, 3)),
        jnp.array([[0, 1, 0]]),
        jnp.array([[True, True, False]]),
    )
    children, cache = drafter.children(prior, nodes, None, drafter.init_cache(1, 9), level=1, trie=trie, config=None)
    assert cache == ()
    assert hash(drafter) == hash(PopularityDrafter())
    assert children.exists.tolist() == [[[True, True], [True, False], [False, False]]]
    np.testing.assert_allclose(np.exp(children.log_prob[0, 0]), [3 / 4, 1 / 4], rtol=1e-6)
    np.testing.assert_allclose(children.log_prob[0, 1], [0, LOWEST])
    assert children.token[0].tolist() == [[5, 6], [5, 0], [0, 0]]


def test_expected_tree_is_ranked_by_the_draft():
    """The oracle of this file itself: another draft, another tree."""
    batch = make_batch(SHAPE, np.random.default_rng(4), trie="full", table="coarse", draft="random")
    prompt = batch.sequences()[1]
    own = expected_tree(batch, prompt, 2)
    target = oracle.beam_search(batch.ids, prompt, table_logits(batch.table), 5, "vocab")
    assert {p for p, _ in own[2]} != {p for p, _ in target.levels[1]}
