"""Collisions, against rules that are read off the ids."""

import itertools

import numpy as np
import pytest

from atspeed_jax.ids.codebooks import Codebooks
from atspeed_jax.ids.collisions import check_room, further_codes, groups, resolve
from atspeed_jax.ids.errors import IdsError

RNG = np.random.default_rng(0)
BOOKS = Codebooks(
    tuple((scale * RNG.normal(size=(4, 2))).astype(np.float32) for scale in (9, 3, 1)), (np.zeros(4, np.float32),) * 3
)


def crowd(items, spread=3.0):
    latents = (spread * RNG.normal(size=(items, 2))).astype(np.float32)
    return BOOKS.assign(latents), latents


def distinct(codes):
    return len({tuple(row) for row in codes.tolist()})


def test_kept_collisions_stay():
    codes, latents = crowd(30)
    assert distinct(codes) < 30
    assert resolve(codes, latents, BOOKS, "keep") is codes


def test_equal_rows_are_a_group():
    np.testing.assert_array_equal(groups(np.array([[1, 2], [0, 9], [1, 2], [2, 1]])), [1, 0, 1, 2])


def test_a_further_code_counts_the_items_of_an_id():
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 2], [0, 0]])
    assert further_codes(codes, 2, 0).tolist() == [[1, 2, 0], [0, 0, 0], [1, 2, 1], [1, 2, 2], [0, 0, 1]]
    known = np.array([[1, 2, 0], [1, 2, 5], [0, 0, 0]])
    grown = np.concatenate([known, [[1, 2, -1], [3, 3, -1], [1, 2, -1], [0, 0, -1]]])
    found = further_codes(grown, 2, 3)
    assert found.tolist() == [*known.tolist(), [1, 2, 6], [3, 3, 0], [1, 2, 7], [0, 0, 1]]
    with pytest.raises(IdsError, match="8193 items have equal codes"):
        further_codes(np.zeros((8193, 2), int), 2, 0)


def test_of_a_group_the_nearest_item_stays_and_the_others_take_the_nearest_free_last_code():
    codes, latents = crowd(30)
    found = resolve(codes, latents, BOOKS, "move")
    assert distinct(found) == 30
    error = ((latents - BOOKS.reconstruct(codes)) ** 2).sum(axis=1)
    for row in {tuple(row) for row in codes.tolist()}:
        group = np.flatnonzero((codes == row).all(axis=1))
        best = group[error[group].argmin()]
        assert tuple(found[best]) == row
    assert (found[:, :2] == codes[:, :2]).all(axis=1).mean() > 0.5
    taken = {tuple(row) for row in codes.tolist()}  # by the items that stay; the movers come by their error
    changed = np.flatnonzero((found != codes).any(axis=1))
    for item in changed[np.argsort(error[changed], kind="stable")]:
        left = latents[item] - BOOKS.reconstruct(codes[item : item + 1], 2)[0]
        order = ((left - BOOKS.centers[2]) ** 2).sum(axis=1).argsort()
        free = [int(code) for code in order if (*codes[item, :2], code) not in taken]
        if free:
            assert tuple(found[item]) == (*codes[item, :2], free[0])
        taken.add(tuple(found[item].tolist()))


def test_a_full_prefix_lets_the_code_before_the_last_one_move():
    latents = np.zeros((16, 2), np.float32)
    codes = np.tile(BOOKS.assign(latents[:1]), (16, 1))
    found = resolve(codes, latents, BOOKS, "move")
    assert distinct(found) == 16
    assert (found[:, 0] == codes[0, 0]).all()
    assert len(set(found[:, 1])) == 4
    all_ids = resolve(np.tile(codes[:1], (64, 1)), np.zeros((64, 2), np.float32), BOOKS, "move")
    assert distinct(all_ids) == 64
    with pytest.raises(IdsError, match="65 items"):
        resolve(np.tile(codes[:1], (65, 1)), np.zeros((65, 2), np.float32), BOOKS, "move")


def test_known_items_stay_when_new_ones_come():
    codes, latents = crowd(20)
    known = resolve(codes, latents, BOOKS, "move")
    more = np.concatenate([known, BOOKS.assign(latents)])  # the same vectors again: every one collides
    found = resolve(more, latents, BOOKS, "move", fixed=20)
    np.testing.assert_array_equal(found[:20], known)
    assert distinct(found) == 40


def test_ids_of_one_code_fill_their_level():
    books = Codebooks(BOOKS.centers[:1], BOOKS.prices[:1])
    found = resolve(np.zeros((4, 1), np.int32), np.zeros((4, 2), np.float32), books, "move")
    assert sorted(itertools.chain(*found.tolist())) == [0, 1, 2, 3]


def test_more_items_than_ids_are_refused():
    check_room(64, (4, 4, 4))
    with pytest.raises(IdsError, match=r"65 .* tell only 64 apart; raise to --levels=4 or --codes=5, or"):
        check_room(65, (4, 4, 4))
    check_room(10**9, (8192,) * 8)
    with pytest.raises(IdsError, match="apart; raise to --levels=2, or"):
        check_room(9_000, (4_096,))
