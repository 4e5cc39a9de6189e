import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.items.trie import TrieCapacity, TrieError, build_trie, popularity_prior, prefix_counts


def random_ids(rng, length, codes, count):
    """Sorted distinct ids [U, L]; each level has its own range of tokens, which starts at 2."""
    everything = np.array(list(itertools.product(range(codes), repeat=length)))
    rows = np.sort(rng.choice(len(everything), count, replace=False))
    return everything[rows] + 2 + codes * np.arange(length)


def prefixes(ids, level):
    return sorted({tuple(row[:level].tolist()) for row in ids})


def check_against_dict(trie, ids):
    """Node n of depth l is the n-th prefix of l tokens; its children are exactly the tokens that may follow it."""
    for level in range(ids.shape[1]):
        room = trie.capacity.nodes[level - 1] if level else 1
        nodes, below = prefixes(ids, level), prefixes(ids, level + 1)
        edge, exists = map(np.asarray, trie.edges(level, jnp.arange(room)[None]))
        assert edge.shape == exists.shape == (1, room, trie.row_width[level])
        for node, prefix in enumerate(nodes):
            found = edge[0, node][exists[0, node]]
            assert [below[e] for e in found] == [p for p in below if p[:-1] == prefix]
            assert np.asarray(trie.token[level])[found].tolist() == [p[-1] for p in below if p[:-1] == prefix]
            assert not edge[0, node][~exists[0, node]].any()
        assert not exists[0, len(nodes) :].any()  # padding has no children


@pytest.mark.parametrize(("length", "codes"), [(1, 9), (2, 5), (3, 4), (4, 3)])
def test_children_are_those_of_a_dict_trie(length, codes):
    rng = np.random.default_rng(length)
    capacity = TrieCapacity(tuple(codes ** (level + 1) for level in range(length)), (codes,) * length)
    for count in (1, 2, codes**length // 2, codes**length):
        ids = random_ids(rng, length, codes, count)
        check_against_dict(build_trie(ids, capacity), ids)
        assert prefix_counts(ids) == tuple(len(prefixes(ids, level)) for level in range(1, length + 1))
        check_ids_below(build_trie(ids, capacity), ids)


def check_ids_below(trie, ids):
    """Ids below every prefix, and how many prefixes have more than one."""
    several = []
    for depth in range(ids.shape[1] + 1):
        found, counts = np.unique(ids[:, :depth], axis=0, return_counts=True)
        np.testing.assert_array_equal(trie.ids_below(depth, jnp.arange(len(found))), counts)
        several.append(int((counts > 1).sum()))
    assert prefix_counts(ids, open_only=True) == tuple(several[1:])


def test_single_child_chains():
    ids = np.array([[2, 9, 20], [3, 8, 21], [5, 8, 20]])
    trie = build_trie(ids)
    check_against_dict(trie, ids)
    assert trie.row_width == (4, 1, 1)
    assert prefix_counts(ids) == (3, 3, 3)


def test_nodes_of_the_last_level_are_rows_of_the_ids():
    ids = random_ids(np.random.default_rng(0), 3, 4, 30)
    trie = build_trie(ids)
    for row, one in enumerate(ids):
        node = jnp.zeros((1, 1), jnp.int32)
        for level, token in enumerate(one):
            edge, exists = trie.edges(level, node)
            node = edge[exists & (trie.token[level][edge] == token)][None]
        assert int(node[0, 0]) == row


def test_capacities_default_to_powers_of_two_and_change_no_child():
    ids = random_ids(np.random.default_rng(1), 3, 5, 40)
    trie = build_trie(ids)
    assert prefix_counts(ids) == (5, 22, 40)
    assert trie.capacity == TrieCapacity((8, 32, 64), (8, 8, 4))
    wide = build_trie(ids, TrieCapacity((11, 50, 300), (5, 7, 40)))
    check_against_dict(wide, ids)
    assert wide.capacity == TrieCapacity((11, 50, 300), (5, 7, 40))
    assert wide.length == 3


def test_another_catalog_of_the_same_capacity_does_not_recompile():
    rng = np.random.default_rng(2)
    children = jax.jit(lambda trie, node: trie.edges(1, node))
    for count in (33, 40, 64):
        children(
            build_trie(random_ids(rng, 3, 4, count), TrieCapacity((4, 16, 64), (4, 4, 4))), jnp.zeros((1, 1), jnp.int32)
        )
    assert children._cache_size() == 1


IDS = np.array([[2, 5, 9], [2, 5, 10], [2, 6, 9], [3, 5, 11], [4, 7, 9]])


@pytest.mark.parametrize(
    ("nodes", "widths", "message"),
    [
        (
            (4, 4, 8),
            (2, 2, 2),
            r"a node of level 0 has 3 children, the trie's row width there is 2: .*row_width\[0\] to 4",
        ),
        (
            (4, 4, 8),
            (4, 1, 2),
            r"a node of level 1 has 2 children, the trie's row width there is 1: .*row_width\[1\] to 2",
        ),
        (
            (4, 4, 8),
            (4, 2, 1),
            r"a node of level 2 has 2 children, the trie's row width there is 1: .*row_width\[2\] to 2",
        ),
        ((2, 4, 8), (4, 2, 2), r"level 1 has 3 prefixes, the trie has room for 2: raise TrieCapacity.nodes\[0\] to 4"),
        ((4, 4, 4), (4, 2, 2), r"level 3 has 5 prefixes, the trie has room for 4: raise TrieCapacity.nodes\[2\] to 8"),
        ((4, 4), (4, 2), "capacity is for ids of length 2, the ids have length 3"),
    ],
)
def test_what_does_not_fit_is_named(nodes, widths, message):
    build_trie(IDS, TrieCapacity((4, 4, 8), (4, 2, 2)))
    with pytest.raises(TrieError, match=message):
        build_trie(IDS, TrieCapacity(nodes, widths))


@pytest.mark.parametrize(
    ("rows", "bad"),
    [
        ([0, 0, 1, 2], "row 1"),
        ([1, 0, 2], "row 1"),
        ([0, 1, 3, 2], "row 3"),
        ([0, 1, 2, 3, 4, 4], "row 5"),
        ([4, 0], "row 1"),
    ],
)
def test_ids_must_be_distinct_and_sorted(rows, bad):
    for function in (build_trie, prefix_counts):
        with pytest.raises(TrieError, match=f"distinct and sorted: {bad} .*Catalog.id_tokens"):
            function(IDS[rows])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4,)])
def test_ids_must_be_a_matrix(shape):
    with pytest.raises(TrieError, match="matrix"):
        build_trie(np.zeros(shape, int))


def test_popularity_prior_counts_below_each_child():
    trie = build_trie(IDS)
    prior = popularity_prior(trie, IDS, np.array([0, 4, 2, 0, 9]))
    # one is added per id: 1 + 5 + 3, 1, 10 of 20 below the root's children
    np.testing.assert_allclose(np.exp(prior[0][:3]), [9 / 20, 1 / 20, 10 / 20], rtol=1e-6)
    np.testing.assert_allclose(np.exp(prior[1][:4]), [6 / 9, 3 / 9, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(np.exp(prior[2][:5]), [1 / 6, 5 / 6, 1, 1, 1], rtol=1e-6)
    assert [p.shape for p in prior] == [t.shape for t in trie.token]


def test_popularity_prior_sums_to_one_over_siblings():
    rng = np.random.default_rng(3)
    ids = random_ids(rng, 4, 3, 50)
    trie = build_trie(ids, TrieCapacity((5, 20, 60, 90), (4, 3, 5, 3)))
    prior = popularity_prior(trie, ids, rng.integers(0, 1000, len(ids)))
    for level in range(4):
        edge, exists = trie.edges(level, jnp.arange(len(prefixes(ids, level)))[None])
        total = jnp.where(exists, jnp.exp(prior[level][edge]), 0).sum(-1)
        np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_beauty_figures(beauty_dir):
    index = json.loads(next(beauty_dir.glob("*.json")).read_text(encoding="utf-8"))
    codes = np.array([[int(code[1:-1].split("_")[1]) for code in one] for one in index.values()])
    offsets = 2 + np.concatenate([[0], np.cumsum(codes.max(0) + 1)[:-1]])
    ids = np.unique(codes + offsets, axis=0)
    trie = build_trie(ids)
    assert (len(codes), len(ids)) == (12_035, 12_023)
    assert prefix_counts(ids) == (91, 6_539, 11_172, 12_023)
    children = [np.diff(np.asarray(rows)) for rows in trie.row_start]
    assert [int(c.max()) for c in children] == [91, 159, 22, 36]
    assert trie.capacity == TrieCapacity((128, 8192, 16384, 16384), (128, 256, 32, 64))
