"""Another catalog served by the same programs: nothing compiled, and the lists of a trie built by hand."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.names import ItemNames
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.recommend import lists_of
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.user_file import User

SHAPE = BatchShape(2, (2,), 4)
NEW = [[1, 1], [2, 1]]  # items 7 and 8, the second with the id of items 4 and 5
USERS = [User(row, np.array(items, np.int64)) for row, items in enumerate([[], [3], [6, 0], [2, 5]])]
COMPILED = []  # events of the compiler
SPECULATIVE = Setting.strict("draft", 3, DecodeConfig(("all",), 1, "vocab"))
MORE = [
    Setting.beam_search(3, "trie"),
    Setting.strict("draft", 2, DecodeConfig(("all",), 1, "trie")),
    Setting.strict("popularity", 3, DecodeConfig(("all",), 1, "vocab")),
]
SETTINGS = [SPECULATIVE, *(pytest.param(setting, marks=pytest.mark.slow) for setting in MORE)]


@pytest.fixture(scope="module", autouse=True)
def compilations():
    def count(event, seconds, **_):
        COMPILED.extend([event] * ("backend_compile" in event))

    jax.monitoring.register_event_duration_secs_listener(count)
    jax.jit(lambda x: x + 1.5)(np.arange(3.0))
    assert COMPILED, "the name of the event has changed"


def trained(toy):
    dataset = Dataset("toy", toy.catalog, *[(np.array([0, 5, 5], np.int32),)] * 3)
    return Assortment(dataset, ItemNames(7), {0: "Soap"})


def without(codes, gone):
    """The index of a toy that lost items and got two new ones."""
    numbers = [item for item in range(7) if item not in gone] + [7, 8]
    rows = np.array([*codes, *NEW])[numbers]
    return ItemIndex(rows, numbers=np.array(numbers) if gone else None, titles={len(numbers) - 1: "Comb"})


def by_hand(toy, items, setting, users):
    """The lists of a catalog of the listed items alone, with a trie of its own, in the numbers of `items`."""
    numbers = np.flatnonzero(items.catalog.listed)
    catalog = Catalog(items.catalog.codes[numbers], toy.catalog.level_sizes)
    popularity = items.dataset.popularity[numbers]
    counts = np.bincount(catalog.id_of_item, weights=popularity, minlength=len(catalog.ids))
    trie = build_trie(catalog.id_tokens)
    decoders = dataclasses.replace(
        toy.decoders,
        trie=trie,
        prior=popularity_prior(trie, catalog.id_tokens, counts),
        prefixes=prefixes_by_norm(catalog.id_tokens),
    )
    place = {item: row for row, item in enumerate(numbers.tolist())}
    train = np.repeat(np.arange(len(numbers)), popularity).astype(np.int32)
    own = Dataset("by hand", catalog, *[(train,)] * 3)
    kept = [User(user.user, np.array([place[item] for item in user.items.tolist()], np.int64)) for user in users]
    rows, scores = lists_of(decoders, setting, own, SHAPE, exclude_seen=False)(kept)
    return np.where(rows >= 0, numbers[rows], -1), scores


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.label)
@pytest.mark.parametrize("gone", [(0, 1, 4, 6), *(pytest.param(one, marks=pytest.mark.slow) for one in ((), (3, 4)))])
def test_another_catalog_compiles_nothing_and_gives_the_lists_of_a_trie_built_by_hand(toy, setting, gone):
    """With four items gone, the ids and the prefixes alone would need less room."""
    items = trained(toy)
    said = []
    grown = items.grown(without(toy.catalog.codes.tolist(), gone), Path("new.json"), said.append)
    assert said == [
        f"new.json: {7 - len(gone)} known items, 2 new ones; {len(gone)} items of the trained catalog removed"
    ]
    assert grown.titles == {0: "Soap", 8: "Comb"}
    for exclude_seen in (False, True):
        before, _ = lists_of(toy.decoders, setting, items.dataset, SHAPE, exclude_seen=exclude_seen)(USERS)
    compiled = len(COMPILED)
    decoders, same = grown.decoders(toy.decoders, setting, pytest.fail)
    found, scores = lists_of(decoders, same, grown.dataset, SHAPE, exclude_seen=False)(USERS)
    unseen, _ = lists_of(decoders, same, grown.dataset, SHAPE, exclude_seen=True)(USERS)
    assert len(COMPILED) == compiled
    assert same == setting
    for user, row in zip(USERS, unseen, strict=True):
        assert not set(row.tolist()) & (set(user.items.tolist()) | set(gone))
    readable = [row for row, user in enumerate(USERS) if not set(user.items.tolist()) & set(gone)]
    expected, theirs = by_hand(toy, grown, setting, [USERS[row] for row in readable])
    assert found[readable].tolist() == expected.tolist()
    np.testing.assert_allclose(scores[readable], theirs, atol=1e-5)
    assert before.shape == found.shape


def test_new_items_are_read_in_histories_and_counted_as_never_bought(toy):
    grown = trained(toy).grown(without(toy.catalog.codes.tolist(), ()), Path("new.json"))
    assert grown.dataset.popularity.tolist() == [1, 0, 0, 0, 0, 2, 0, 0, 0]
    setting = Setting.beam_search(8, "vocab")
    decoders, _ = grown.decoders(toy.decoders, setting, pytest.fail)
    users = [User("a", np.array([7])), User("b", np.array([4])), User("c", np.array([8]))]
    items, scores = lists_of(decoders, setting, grown.dataset, SHAPE, exclude_seen=False)(users)
    assert items[1].tolist() == items[2].tolist()  # items of one id are one to the models
    assert not np.allclose(scores[0], scores[1], atol=1e-3)
    place = items[0].tolist().index(5)  # of the items of this id the popular one comes first
    assert items[0].tolist()[place : place + 3] == [5, 4, 8]


@pytest.mark.slow  # it compiles twice
def test_a_catalog_that_outgrows_its_trie_is_compiled_again_and_says_so(toy):
    """Nine ids, where the trie has room for eight."""
    codes = [*toy.catalog.codes.tolist(), [1, 1], [2, 0], [2, 2]]
    said, setting = [], MORE[1].searching(beams=3)
    grown = trained(toy).grown(ItemIndex(np.array(codes)), Path("new.json"))
    decoders, same = grown.decoders(toy.decoders, setting, said.append)
    outgrown = "level 2 has 9 prefixes, the trie has room for 8"
    assert said == [f"the decoder is compiled again for this catalog: {outgrown}; K=3 needs wider levels"]
    found, _ = lists_of(decoders, same, grown.dataset, SHAPE, exclude_seen=False)(USERS)
    assert found.tolist() == by_hand(toy, grown, setting, USERS)[0].tolist()


@pytest.mark.slow  # it compiles twice
def test_levels_too_narrow_for_k_are_widened(toy):
    """The trained catalog has two first codes here, the grown one three, and K is three."""
    known = [0, 1, 2, 3, 6]
    small = dataclasses.replace(toy.catalog, codes=toy.catalog.codes[known])
    trie = build_trie(small.id_tokens, toy.decoders.trie.capacity)
    decoders = dataclasses.replace(toy.decoders, trie=trie, prefixes=prefixes_by_norm(small.id_tokens))
    items = Assortment(Dataset("toy", small, *[(np.array([0], np.int32),)] * 3), ItemNames(5), {})
    grown = items.grown(ItemIndex(np.array([*small.codes.tolist(), [2, 1]])), Path("new.json"))
    said, setting = [], Setting.strict("draft", 3, DecodeConfig((2,), 1, "vocab"))
    changed, wider = grown.decoders(decoders, setting, said.append)
    assert said == [
        "the decoder is compiled again for this catalog: K=3 needs wider levels",
        "raised to what K=3 needs: widths (2,) -> (3,)",
    ]
    found, _ = lists_of(changed, wider, grown.dataset, SHAPE, exclude_seen=False)(USERS[:1])
    assert found.tolist() == by_hand(toy, grown, Setting.beam_search(3, "vocab"), USERS[:1])[0].tolist()


def test_the_fingerprint_of_changes(toy):
    items = trained(toy)
    codes = toy.catalog.codes.tolist()
    grown = [items.grown(without(codes, gone), Path("new.json")) for gone in ((), (4,), (5,))]
    assert len({one.changes for one in (items, *grown)}) == 4
