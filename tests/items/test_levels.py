"""The per-level constraint: what it lets through, and that both decoders search it as they would a trie of all ids."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.items.levels import LevelTrie, level_trie
from atspeed_jax.items.trie import Trie, TrieError, build_trie
from cases import SHAPES, STEP, items_of, make_batch
from properties import ROUNDING
from table_model import table_logits

IDS = np.array([[2, 5, 9], [2, 6, 9], [4, 5, 8], [4, 7, 8]])  # levels of 2, 3 and 2 codes; token 3 never occurs


def test_children_are_all_codes_of_a_level():
    trie = level_trie(build_trie(IDS))
    codes = [[2, 4], [5, 6, 7], [8, 9]]
    assert trie.length == 3
    assert trie.row_width == (2, 3, 2)
    prefixes = [()]
    for level, own in enumerate(codes):
        edge, exists = trie.edges(level, jnp.arange(len(prefixes))[None])
        below = [(*prefix, token) for prefix in prefixes for token in own]
        assert exists.all()
        assert edge.shape == (1, len(prefixes), len(own))
        assert trie.child_token(level, edge).reshape(-1).tolist() == [one[-1] for one in below]
        if level < 2:  # nodes are numbered in lexicographic order
            assert edge.reshape(-1).tolist() == list(range(len(below)))
        prefixes = below


def test_ids_below_count_the_codes_of_later_levels():
    trie = level_trie(build_trie(np.array([[2, 4, 6], [3, 5, 6]])))  # one code at the last level
    assert [trie.ids_below(level, jnp.zeros(1, int)).tolist() for level in range(4)] == [[4], [2], [1], [1]]


@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.slow), 6])
def test_both_decoders_find_what_a_search_over_all_ids_finds(number):
    shape, rng, compared = SHAPES[number], np.random.default_rng(number), 0
    for kind in ("full", "chains"):
        for table, draft in itertools.product(shape.tables, ("near", "adversarial")):
            exact = make_batch(shape, rng, trie=kind, table=table, draft=draft)
            batch = dataclasses.replace(exact, trie=level_trie(exact.trie))
            ids = list(itertools.product(*(sorted(set(column)) for column in zip(*exact.ids, strict=True))))
            results = batch.plain(STEP), batch.speculative(STEP)
            for row, prompt in enumerate(batch.sequences()):
                expected = oracle.beam_search(ids, prompt, table_logits(batch.table), shape.beams, shape.norm)
                if batch.exact or expected.margin >= ROUNDING:
                    compared += 1
                    for result in results:
                        assert items_of(result, row) == [item for item, _ in expected.items]
                        scores = [score for _, score in expected.items]
                        np.testing.assert_allclose(result.score[row, : len(scores)], scores, atol=ROUNDING)
    assert compared >= 20


def test_find_says_which_ids_exist():
    rng = np.random.default_rng(0)
    every = np.array(list(itertools.product(*(range(2 + 4 * level, 6 + 4 * level) for level in range(3)))))
    chosen = np.sort(rng.choice(len(every), 23, replace=False))
    row, found = build_trie(every[chosen]).find(jnp.asarray(every[None]))
    assert np.flatnonzero(found[0]).tolist() == chosen.tolist()
    assert row[0][chosen].tolist() == list(range(23))
    assert not np.asarray(row[0])[~np.asarray(found[0])].any()


def test_more_prefixes_than_can_be_numbered():
    codes = 1 << 11
    wide = Trie(
        tuple(jnp.array([0, codes]) for _ in range(4)), tuple(jnp.arange(codes) for _ in range(4)), (codes,) * 4
    )
    with pytest.raises(TrieError, match=r"levels of \(2048, 2048, 2048, 2048\) codes have more prefixes than int32"):
        level_trie(wide)
    few = level_trie(Trie(wide.row_start[:3], wide.token[:3], wide.row_width[:3]))  # whole ids need no number
    assert isinstance(few, LevelTrie)
    assert few.ids_below(0, jnp.zeros(1, jnp.int32)).tolist() == [np.iinfo(np.int32).max]
