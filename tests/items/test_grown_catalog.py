"""Catalogs that grew after training, and catalogs of which some items alone are listed."""

from pathlib import Path

import numpy as np
import pytest

from atspeed_jax.items.catalog import Catalog, CatalogError
from atspeed_jax.items.filters import NO_ID, id_lists
from atspeed_jax.items.grown_catalog import counts_of_ids, grow, listed_items, listing
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.names import ItemNames

CODES = [[0, 0], [0, 1], [2, 1], [2, 1]]
TRAINED = Catalog.from_codes(np.array(CODES))
NAMED = ItemNames(4, ("A", "B", "C", "D"), numbers_too=True)
FILE = Path("new.parquet")


def index(codes, names=None, numbers=None, **more):
    return ItemIndex(np.array(codes), names=names, numbers=None if numbers is None else np.array(numbers), **more)


def test_items_are_matched_by_name_in_whatever_order_they_come():
    """C is gone, its twin D stays; E and F are new, F with the id of A."""
    given = index([[1, 0], [2, 1], [0, 0], [0, 0], [0, 1]], ("E", "D", "F", "A", "B"), titles={0: "New", 3: "Old"})
    found = grow(TRAINED, NAMED, {0: "Older", 2: "Gone"}, given, FILE)
    assert found.catalog.codes.tolist() == [*CODES, [1, 0], [0, 0]]
    assert found.catalog.listed.tolist() == [True, True, False, True, True, True]
    assert found.names.names == ("A", "B", "C", "D", "E", "F")
    assert found.names.number(5) == 5
    assert found.titles == {0: "Old", 2: "Gone", 4: "New"}
    assert str(found) == "3 known items, 2 new ones; 1 items of the trained catalog removed"
    assert found.catalog.level_sizes == TRAINED.level_sizes
    assert found.catalog.tokens([2, 4]).tolist() == [TRAINED.tokens([2])[0].tolist(), [3, 5]]


def test_without_names_items_are_matched_by_number():
    found = grow(TRAINED, ItemNames(4), {}, index([*CODES, [1, 1]]), FILE)
    assert (found.names.names, found.names.items, found.removed) == (None, 5, 0)
    gaps = grow(TRAINED, ItemNames(4), {}, index([CODES[1], [1, 1], [1, 0]], numbers=[1, 6, 9]), FILE)
    assert gaps.names.names == (0, 1, 2, 3, 6, 9)
    assert gaps.catalog.listed.tolist() == [False, True, False, False, True, True]
    assert gaps.names.called([5, 1]) == [9, 1]
    by_number = grow(TRAINED, NAMED, {}, index(CODES[1:], numbers=[1, 2, 3]), FILE)
    assert (by_number.names.names, by_number.removed) == (NAMED.names, 1)


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (index([[0, 0], [0, 2]], ("A", "B")), NAMED, r"item 'B' has the codes \[0, 2\], but was trained with \[0, 1\]"),
        (index([[0, 0], [0, 0]]), ItemNames(4), r"item 1 has the codes \[0, 0\].*\(1 such items\); a known item"),
        (
            index([[0, 0], [0, 2]], ("A", "E")),
            NAMED,
            "item 'E' has code 2 at level 1, .* tokens for the 2 codes 0..1 of",
        ),
        (index([[3, 0]], ("E",)), NAMED, "item 'E' has code 3 at level 0, .* the 3 codes 0..2"),
        (index([[0, 0, 0]], ("A",)), NAMED, "ids have 3 codes, those of the run have 2; .*build_ids --assign"),
        (index([[0, 0]], ("A",), spelling=("<x_{}>", "<y_{}>")), NAMED, "codes are written .*, those of the run as us"),
        (index([*CODES, [1, 1]]), NAMED, "item 4 is new, but the index has no names"),
        (index([[0, 0]], ("A",), model_tokens=(np.arange(1),) * 2), NAMED, "ids are tokens of a model"),
    ],
)
def test_an_index_that_does_not_fit_the_models_is_refused(given, names, message):
    with pytest.raises(CatalogError, match=rf"new\.parquet: .*{message}"):
        grow(TRAINED, names, {}, given, FILE)


def test_ids_are_those_of_listed_items():
    catalog = listing(TRAINED, np.array([True, False, True, False]))
    assert catalog.ids.tolist() == [[0, 0], [2, 1]]
    assert catalog.id_of_item.tolist() == [0, -1, 1, -1]
    order, offsets = catalog.items_by_id(np.array([3, 5, 1, 9]))
    assert (order.tolist(), offsets.tolist()) == ([0, 2], [0, 1, 2])
    assert counts_of_ids(catalog, np.array([3, 5, 1, 9])).tolist() == [3, 1]
    assert catalog.collisions == []
    # Item 2 alone is listed with its id, so to exclude it is to exclude the id; item 3 cannot bring it back.
    assert id_lists(catalog, [[2], [3], [0, 1, 3]], 2, allow=False).tolist() == [[1, NO_ID], [NO_ID] * 2, [0, NO_ID]]
    assert id_lists(catalog, [[2], [3], [0, 1, 3]], 2, allow=True).tolist() == [[1, NO_ID], [NO_ID] * 2, [0, NO_ID]]
    two = listing(TRAINED, np.array([False, True, True, True]))  # -1 stands for item 0, and for no id
    assert id_lists(two, [[2], [2, 3]], 2, allow=False).tolist() == [[NO_ID] * 2, [1, NO_ID]]
    assert id_lists(listing(TRAINED, np.array([False, False, True, True])), [[2, 3]], 1, allow=False).tolist() == [[0]]
    assert listed_items(catalog).tolist() == [True, False, True, False]
    whole = listing(TRAINED, np.ones(4, bool))
    assert whole.ids.tolist() == TRAINED.ids.tolist()
    assert whole.collisions == TRAINED.collisions == [(2, 3)]
    assert counts_of_ids(TRAINED, np.array([3, 5, 1, 9])).tolist() == [3, 5, 10]
    assert listed_items(TRAINED).all()


def test_a_catalog_lists_something():
    with pytest.raises(CatalogError, match="of 4 items 0 may be listed; expected at least one"):
        listing(TRAINED, np.zeros(4, bool))
