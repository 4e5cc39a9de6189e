import numpy as np
import pytest

from atspeed_jax.items.catalog import BOS, FIRST_CODE, PAD, Catalog, CatalogError, expand_ids

# Items 0, 3 and 5 share an id, so do 1 and 4.
CODES = np.array([[1, 0, 2], [0, 4, 1], [1, 0, 0], [1, 0, 2], [0, 4, 1], [1, 0, 2]])


@pytest.fixture
def catalog():
    return Catalog.from_codes(CODES)


def test_sizes(catalog):
    assert (catalog.items, catalog.length, catalog.level_sizes) == (6, 3, (2, 5, 3))
    assert catalog.vocab_size == 2 + 2 + 5 + 3


def test_tokens_are_consecutive_per_level(catalog):
    assert (PAD, BOS, FIRST_CODE) == (0, 1, 2)
    np.testing.assert_array_equal(catalog.tokens([1, 0]), [[2 + 0, 4 + 4, 9 + 1], [2 + 1, 4 + 0, 9 + 2]])
    assert catalog.tokens(3).shape == (3,)
    assert catalog.tokens(np.zeros((4, 5), int)).shape == (4, 5, 3)
    assert catalog.tokens([]).shape == (0, 3)
    assert catalog.tokens([0]).dtype == np.int32


def test_tokens_go_back_to_codes(catalog):
    every = np.arange(catalog.items).reshape(2, 3)
    np.testing.assert_array_equal(catalog.codes_of_tokens(catalog.tokens(every)), CODES[every])


def test_ids_are_distinct_and_sorted(catalog):
    np.testing.assert_array_equal(catalog.ids, [[0, 4, 1], [1, 0, 0], [1, 0, 2]])
    np.testing.assert_array_equal(catalog.ids[catalog.id_of_item], CODES)
    np.testing.assert_array_equal(catalog.id_tokens, [[2, 8, 10], [3, 4, 9], [3, 4, 11]])
    assert catalog.id_tokens.dtype == np.int32


def test_collisions_are_listed(catalog):
    assert catalog.collisions == [(1, 4), (0, 3, 5)]
    assert Catalog.from_codes(CODES[:3]).collisions == []


def test_items_by_id_is_popularity_then_number(catalog):
    items, offsets = catalog.items_by_id(np.array([2, 1, 0, 7, 1, 2]))
    np.testing.assert_array_equal(offsets, [0, 2, 3, 6])
    np.testing.assert_array_equal(items, [1, 4, 2, 3, 0, 5])


def test_expand_ids_cuts_at_k_and_skips_invalid_places(catalog):
    items, offsets = catalog.items_by_id(np.array([2, 1, 0, 7, 1, 2]))
    rows = np.array([[2, 0, 1], [1, -1, 0], [-1, -1, -1]])
    expected = [[3, 0, 5, 1], [2, 1, 4, -1], [-1, -1, -1, -1]]
    np.testing.assert_array_equal(expand_ids(rows, items, offsets, 4), expected)
    np.testing.assert_array_equal(expand_ids(rows, items, offsets, 2), [row[:2] for row in expected])


def test_expand_ids_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(rng.integers(4, size=(60, 3)))
    items, offsets = catalog.items_by_id(rng.integers(9, size=60))
    rows = np.stack([rng.permutation(len(catalog.ids))[:12] for _ in range(20)])
    rows[rng.random(rows.shape) < 0.2] = -1
    for row, found in zip(rows, expand_ids(rows, items, offsets, 15), strict=True):
        listed = [item for place in row if place >= 0 for item in items[offsets[place] : offsets[place + 1]]]
        np.testing.assert_array_equal(found, (listed + [-1] * 15)[:15])


def test_many_roots_and_long_ids():
    codes = np.stack([np.arange(248), *(np.arange(248) % (size + 2) for size in range(7))], axis=1)
    catalog = Catalog.from_codes(codes)
    assert catalog.level_sizes == (248, 2, 3, 4, 5, 6, 7, 8)
    np.testing.assert_array_equal(catalog.codes_of_tokens(catalog.id_tokens), codes)
    assert catalog.id_tokens.max() == catalog.vocab_size - 1


def test_random_codes_are_those_of_their_level_and_seed():
    catalog = Catalog.random(500, (3, 90), seed=1)
    assert catalog.codes.shape == (500, 2)
    assert catalog.codes.max(axis=0).tolist() == [2, 89]
    assert catalog.level_sizes == (3, 90)
    np.testing.assert_array_equal(Catalog.random(500, (3, 90), seed=1).codes, catalog.codes)
    assert (Catalog.random(500, (3, 90)).codes != catalog.codes).any()


def test_the_callers_array_is_left_alone_and_the_catalog_cannot_change():
    codes = CODES.copy()
    catalog = Catalog.from_codes(codes)
    codes[0] = 9
    np.testing.assert_array_equal(catalog.codes, CODES)
    with pytest.raises(ValueError, match="read-only"):
        catalog.codes[0] = 1


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, 3), int), r"shape \(0, 3\).*at least one item"),
        (np.zeros((3, 9), int), r"shape \(3, 9\).*1 to 8"),
        (np.zeros((3, 0), int), r"shape \(3, 0\)"),
        (np.zeros((3, 2)), "integers.*float64"),
        (np.zeros(3, int), "matrix"),
        (np.array([[0, 1], [2, -1]]), "item 1 has code -1 at level 1"),
        (np.array([[0, 1], [1 << 16, 1]]), "item 1: code 65536 at level 0"),
    ],
)
def test_bad_codes(codes, message):
    with pytest.raises(CatalogError, match=message):
        Catalog.from_codes(codes)


def test_bad_level_sizes():
    with pytest.raises(CatalogError, match="2 entries but ids have 3 codes"):
        Catalog(CODES, (2, 5))
    with pytest.raises(CatalogError, match=r"item 1: code 4 at level 1.*level_sizes\[1\]"):
        Catalog(CODES, (2, 4, 3))


def test_bad_questions(catalog):
    with pytest.raises(CatalogError, match=r"item 6 is not in the catalog.*0\.\.5"):
        catalog.tokens([0, 6])
    with pytest.raises(CatalogError, match="item -1"):
        catalog.tokens(-1)
    with pytest.raises(CatalogError, match=r"token 0 at place \(1, 2\) is no code of level 2"):
        catalog.codes_of_tokens([[2, 4, 9], [2, 4, PAD]])
    with pytest.raises(CatalogError, match="token 4 at place"):
        catalog.codes_of_tokens([4, 4, 9])
    with pytest.raises(CatalogError, match="last axis must have 3"):
        catalog.codes_of_tokens([2, 4])
    with pytest.raises(CatalogError, match=r"shape \(5,\).*\(6,\)"):
        catalog.items_by_id(np.zeros(5))
