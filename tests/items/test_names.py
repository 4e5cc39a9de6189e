"""Names of items in the directory of a run."""

import json

import pytest

from atspeed_jax.items.names import ItemNames, NamesError, check_names, item_names, read_names


@pytest.mark.parametrize("names", [["B01", "B02"], [12, 7], ["12", 12]])
def test_names_come_back_as_they_were_written(tmp_path, names):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(names))
    assert read_names(path, 2) == tuple(names)


def test_a_run_without_the_file_has_no_names(tmp_path):
    assert read_names(tmp_path / "names.json", 2) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('["a"', "cannot be read"),
        ('{"0": "a"}', "holds a dict"),
        ('["a"]', "has 1 names, but the catalog has 2 items"),
        ('["a", null]', "the name of item 1 is None"),
        ('["a", true]', "the name of item 1 is True"),
        ('["a", 1.5]', "the name of item 1 is 1.5"),
        ('["a", "a"]', "items 0 and 1 are both called 'a'"),
    ],
)
def test_other_content_is_refused(tmp_path, content, said):
    path = tmp_path / "names.json"
    path.write_text(content)
    with pytest.raises(NamesError, match=said):
        read_names(path, 2)


def test_check_names_says_where_they_come_from():
    with pytest.raises(NamesError, match=r"index\.parquet: items 1 and 2 are both called 7"):
        check_names([5, 7, 7], "index.parquet")


@pytest.mark.parametrize(
    ("names", "value", "item"),
    [
        (("B01", "B02"), "B02", 1),
        (("B01", "B02"), "b02", -1),
        (("B01", "B02"), 1, -1),
        ((12, 7), "7", 1),
        ((12, 7), 7.0, 1),
        (("12", "7"), 7, 1),
        (("12", "7"), "7", 1),
        (("12", "007"), 7, -1),
        ((7, "7"), "7", 1),
        ((7, "7"), 7, 0),
        ((-3, 7), "-3", 0),
    ],
)
def test_an_item_is_found_by_the_value_of_its_name(names, value, item):
    assert ItemNames(2, names).number(value) == item


def test_numbers_call_items_where_no_name_is_a_number():
    assert [ItemNames(2, ("B01", "B02"), numbers_too=True).number(value) for value in (1, "0", 2, -1, "B02")] == [
        *(1, 0, -1, -1, 1)
    ]
    for names in (("B01", "7"), ("B01", 7)):
        assert [ItemNames(2, names, numbers_too=True).number(value) for value in (0, 1, 7)] == [-1, -1, 1]


@pytest.mark.parametrize("names", [None, ("a", "b"), (5, 6)])
@pytest.mark.parametrize("value", [True, None, 1.5, float("nan"), [0], b"a"])
def test_what_calls_no_item_is_refused(names, value):
    with pytest.raises(ValueError, match="is not the n"):
        ItemNames(2, names).number(value)


def test_without_names_items_are_numbers():
    items = item_names(3)
    assert [items.number(value) for value in (2, "2", 2.0, 3, -1, 2**80)] == [2, 2, 2, 3, -1, 2**80]
    assert (items.called([2, 0]), items.texts) == ([2, 0], False)
    assert item_names(items) is items
    for value in ("B01", "01", "-1"):
        with pytest.raises(ValueError, match="is not the number of an item"):
            items.number(value)


def test_lists_are_of_names_as_they_were_given():
    items = ItemNames(3, ("B01", 7, "x"))
    assert (items.called([2, 1]), items.texts) == (["x", 7], True)
    assert not ItemNames(2, (5, 7)).texts
    assert items.described == "whose 3 items are called such as 'B01'"
