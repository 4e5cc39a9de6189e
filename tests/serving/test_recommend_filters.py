"""Lists under allow and exclude lists and seen items, against every item's score."""

import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.items.grown_catalog import listing
from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.recommend import lists_of
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.user_file import NOTHING, User

SHAPE, K = BatchShape(2, (2,), 2), 3
HISTORIES = [[], [3], [6, 0], [4], [1, 2], [5]]
EXCLUDED = [[], [3, 4], [1], [5], [0, 1, 2, 3, 4, 5, 6], []]
ALLOWED = [None, [4, 5, 6, 0, 1, 2], [0, 6, 2, 3, 5], [4, 5], [0, 1, 2, 3, 4, 5, 6], []]
SETTINGS = [
    Setting.beam_search(K, "vocab"),
    pytest.param(Setting.strict("draft", K, DecodeConfig((3,), 1, "trie")), marks=pytest.mark.slow),
]


def dataset_of(toy, catalog=None):
    """Item 5 is more popular than item 4, which has its id."""
    return Dataset("toy", catalog or toy.catalog, *[(np.array([0, 5], np.int32),)] * 3)


@pytest.fixture(scope="module", params=SETTINGS, ids=["vocab", "trie"])
def world(request):
    toy = request.getfixturevalue("toy")
    batches = prompt_batches(toy.catalog, [np.array(one, np.int64) for one in HISTORIES], SHAPE)
    every = Setting.beam_search(6, request.param.search.score_norm)
    return toy, request.param, decode_users(toy.decoders.build(every), batches, len(HISTORIES))


def best(toy, every, row, permitted):
    """The K best permitted items by the scores of all ids, those of one id by popularity."""
    order, offsets = toy.catalog.items_by_id(dataset_of(toy).popularity)
    ranked = [item for one in every.ids[row] for item in order[offsets[one] : offsets[one + 1]].tolist()]
    return [item for item in ranked if item in permitted][:K]


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("with_allow", [False, True])
@pytest.mark.parametrize("with_exclude", [False, True])
def test_lists_are_the_best_of_what_is_left(world, capsys, exclude_seen, with_allow, with_exclude):
    toy, setting, every = world
    users = [
        User(
            f"u{row}",
            np.array(HISTORIES[row], np.int64),
            np.array(EXCLUDED[row] if with_exclude else [], np.int64),
            may,
        )
        for row, may in enumerate(
            np.array(may, np.int64) if with_allow and may is not None else None for may in ALLOWED
        )
    ]
    lists = lists_of(toy.decoders, setting, dataset_of(toy), SHAPE, exclude_seen=exclude_seen)
    items, scores = lists(users)
    empty = []
    for row, user in enumerate(users):
        permitted = set(range(7)) if user.allow is None else set(user.allow.tolist())
        permitted -= set(user.exclude.tolist()) | (set(HISTORIES[row]) if exclude_seen else set())
        found = [item for item in items[row].tolist() if item >= 0]
        if setting.search.score_norm == "vocab":  # under the other norm the scores are those of what is left
            assert found == best(toy, every, row, permitted)
        assert set(found) <= permitted
        assert len(found) == min(K, len(permitted))
        assert (scores[row] > -np.inf).sum() == len(found)
        empty += [] if permitted else [repr(user.user)]
    out = capsys.readouterr().out
    assert out == (f"note: no item is left for {len(empty)} users: {', '.join(empty)}\n" if empty else "")


@pytest.mark.parametrize("norm", ["vocab", pytest.param("trie", marks=pytest.mark.slow)])
def test_a_list_for_all_gives_what_lists_per_user_give(toy, norm):
    """By a smaller trie. Under trie norm scores depend on what is left."""
    listed = np.array([True, False, True, True, False, True, True])
    setting = Setting.beam_search(K, norm)
    whole = Assortment(dataset_of(toy), ItemNames(7), {})
    left = whole.only(np.array([0, 2, 3, 5, 6, 4]), np.array([4]))
    assert left.catalog.listed.tolist() == listed.tolist()
    assert (left.available, whole.changes) == (5, ())
    assert whole.only(None, NOTHING) is whole
    decoders, same = left.decoders(toy.decoders, setting, pytest.fail)
    assert same == setting
    users = [User(f"u{row}", np.array(history, np.int64)) for row, history in enumerate(HISTORIES)]
    items, scores = lists_of(decoders, setting, left.dataset, SHAPE, exclude_seen=False)(users)
    per_user = [User(user.user, user.items, NOTHING, np.flatnonzero(listed)) for user in users]
    expected = lists_of(toy.decoders, setting, dataset_of(toy), SHAPE, exclude_seen=False)(per_user)
    assert items.tolist() == expected[0].tolist()
    np.testing.assert_allclose(scores, expected[1], atol=1e-6)
    assert listing(toy.catalog, listed).ids.tolist() == left.catalog.ids.tolist()
