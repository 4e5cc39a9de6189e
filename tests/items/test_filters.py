"""Filtered search is search over a trie rebuilt without the ids that are not permitted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.filters import (
    NO_ID,
    FilteredTrie,
    FilterError,
    first_unknown,
    id_lists,
    known_items,
    unseen_items,
)
from atspeed_jax.items.levels import level_trie
from atspeed_jax.items.trie import build_trie
from cases import SHAPES, STEP, batches
from properties import ROUNDING, check_user
from table_model import table_logits

CAPACITY = 40
FILTERED = [(False, 0), (True, 7)]
MORE = [(False, number) for number in (1, 3, 5, 7, 10)] + [(True, number) for number in (0, 1, 3, 5, 10)]
FILTERED += [pytest.param(*case, marks=pytest.mark.slow) for case in MORE]


def random_lists(ids: int, users: int, rng) -> np.ndarray:
    """[users, CAPACITY]: nothing, everything that fits, runs of neighbours (whole branches), and scattered ids."""
    lists = np.full((users, CAPACITY), NO_ID, np.int32)
    for row in lists:
        kind, most = rng.integers(4), min(ids, CAPACITY)
        if kind == 0:
            chosen = np.arange(0)
        elif kind == 1:
            chosen = np.arange(most)
        elif kind == 2:
            start = rng.integers(ids)
            chosen = np.arange(start, min(ids, start + rng.integers(1, most + 1)))
        else:
            chosen = np.sort(rng.choice(ids, rng.integers(1, most + 1), replace=False))
        row[: len(chosen)] = chosen
    return lists


@pytest.mark.parametrize(("allow", "number"), FILTERED)
def test_filtered_lists_are_those_of_a_catalog_without_the_other_ids(allow, number):
    rng, shape = np.random.default_rng(3), SHAPES[number]
    before = beam_search._cache_size(), speculative_beam_search._cache_size()
    compared = 0
    for batch in batches(shape, 12, seed=4):
        lists = random_lists(len(batch.ids), shape.batch, rng)
        filtered = dataclasses.replace(batch, trie=FilteredTrie(batch.trie, lists, allow=allow))
        results = filtered.plain(STEP), filtered.speculative(STEP)
        for row, prompt in enumerate(batch.sequences()):
            listed = set(lists[row].tolist())
            left = [one for number, one in enumerate(batch.ids) if (number in listed) == allow]
            if not left:
                assert not any(result.valid[row].any() for result in results)
                continue
            expected = oracle.beam_search(left, prompt, table_logits(batch.table), shape.beams, shape.norm)
            if batch.exact or expected.margin >= ROUNDING:
                compared += 1
                for result in results:
                    check_user(batch, result, row, expected.items)
    assert compared >= 30
    # The lists change from batch to batch: at most one compilation each.
    assert beam_search._cache_size() - before[0] <= 1
    assert speculative_beam_search._cache_size() - before[1] == 1


def test_a_child_exists_as_long_as_one_id_below_it_is_permitted():
    ids = np.array([[2, 5], [2, 6], [3, 5], [4, 7]])
    lists = np.array([[0, 2, NO_ID], [0, 1, 3], [NO_ID] * 3], np.int32)
    node = np.zeros((3, 1), np.int32)
    for allow, roots in ((False, [[1, 0, 1], [0, 1, 0], [1, 1, 1]]), (True, [[1, 1, 0], [1, 0, 1], [0, 0, 0]])):
        _, exists = jax.jit(FilteredTrie.edges, static_argnums=1)(
            FilteredTrie(build_trie(ids), lists, allow=allow), 0, node
        )
        np.testing.assert_array_equal(exists[:, 0, :3], np.array(roots, bool))
        assert not exists[:, 0, 3:].any()


def test_items_become_ids():
    catalog = Catalog.from_codes(np.array([[1, 1], [0, 0], [1, 1], [0, 1]]))  # items 0 and 2 share the last id
    np.testing.assert_array_equal(
        id_lists(catalog, [[3, 1, 3], [0], [2, 0], []], 3, allow=False),
        [[0, 1, NO_ID], [NO_ID] * 3, [2, NO_ID, NO_ID], [NO_ID] * 3],
    )
    np.testing.assert_array_equal(id_lists(catalog, [[0], [3, 2]], 2, allow=True), [[2, NO_ID], [1, 2]])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([4], "list 1 holds item 4; the catalog has items 0 to 3"),
        ([-1], "item -1"),
        ([1, 3], "list 1 has 2 ids, more"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(items, message):
    catalog = Catalog.from_codes(np.array([[1, 1], [0, 0], [1, 0], [0, 1]]))
    with pytest.raises(FilterError, match=message):
        id_lists(catalog, [[0], items], 1, allow=False)


def test_known_items():
    known, unknown = known_items([5, 0, -1, 2, 0], 3)
    assert known.tolist() == [0, 2, 0]
    assert unknown.tolist() == [5, -1]
    assert known.dtype == np.int64
    assert [part.tolist() for part in known_items([], 3)] == [[], []]


def test_first_unknown():
    assert first_unknown([[0, 2], [], [1, 3, -1], [5]], 3) == (2, 3)
    assert first_unknown([[], [-1]], 3) == (1, -1)
    assert first_unknown([[0, 2], []], 3) is first_unknown([[], []], 3) is first_unknown([], 3) is None


def test_unseen_items():
    """Id 1 stands for items 1 and 3; what is left closes up, and an id stays for an item that was not seen."""
    catalog = Catalog.from_codes(np.array([[0, 0], [0, 1], [1, 0], [0, 1]]))
    shared = catalog.items_by_id(np.array([0, 5, 0, 9]))
    ids = np.array([[1, 2, -1], [1, 0, 2], [-1, 2, 1]])
    found = unseen_items(ids, [[], [3, 0], [2, 1, 3]], *shared)
    assert found.tolist() == [[3, 1, 2], [1, 2, -1], [-1, -1, -1]]


def test_the_lists_alone_have_a_row_per_user():
    """What is split over devices and taken row by row: the lists, whichever trie they stand over."""
    plain = build_trie(np.array([[2, 4], [2, 5], [3, 4]]))
    lists = jnp.array([[0, NO_ID], [1, 2], [NO_ID, NO_ID]])
    trie = FilteredTrie(plain, lists, allow=False)
    for free in (plain, level_trie(plain)):
        assert jax.tree.structure(free.per_user()) == jax.tree.structure(free)
        assert not any(jax.tree.leaves(free.per_user()))
        assert free.take_rows(jnp.array([2, 0])) is free
    marks = trie.per_user()
    assert jax.tree.structure(marks) == jax.tree.structure(trie)
    assert marks.ids is True
    assert not any(jax.tree.leaves(marks.trie))
    assert trie.take_rows(jnp.array([2, 0])).ids.tolist() == [lists[2].tolist(), lists[0].tolist()]
