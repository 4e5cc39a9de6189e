import json

import numpy as np
import pytest

import layouts
from atspeed_jax.data.files import leave_one_out, titles_of
from atspeed_jax.items.index_file import read_index
from atspeed_jax.items.item_index import SourceError


def test_leave_one_out_never_asks_users_with_fewer_than_3_items():
    splits = leave_one_out(np.arange(count) for count in (0, 1, 2, 3, 5))
    assert [items.tolist() for items in splits["train"]] == [[], [0], [0, 1], [0], [0, 1, 2]]
    assert [items.tolist() for items in splits["valid"]] == [[], [], [], [1], [3]]
    assert [items.tolist() for items in splits["test"]] == [[], [], [], [2], [4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items.pop("2"), r"no entry for item 2, but one in the index \(3 entries, 4 items"),
        (lambda items: items.update({"4": {}}), r"an entry for item 4, but the index has none \(5 entries"),
    ],
)
def test_titles_of_other_items_than_the_index_has(tmp_path, change, message):
    index = read_index(layouts.write_index(tmp_path) / "Beauty.index.json")
    file = tmp_path / "Beauty.item.json"
    assert titles_of(file, index) == layouts.TITLES
    items = json.loads(file.read_text())
    change(items)
    file.write_text(json.dumps(items))
    with pytest.raises(SourceError, match=rf"Beauty\.item\.json: {message}"):
        titles_of(file, index)
    assert titles_of(tmp_path / "none.json", index) == {}


def test_a_title_that_is_none_is_named(tmp_path):
    index = read_index(layouts.write_index(tmp_path) / "Beauty.index.json")
    file = tmp_path / "Beauty.item.json"
    titles = {str(item): {"title": 7} if item else {"brand": "x"} for item in range(4)}
    file.write_text(json.dumps(titles))
    assert titles_of(file, index) == {1: "7", 2: "7", 3: "7"}
    file.write_text(json.dumps(titles | {"2": {"title": ["a"]}}))
    with pytest.raises(SourceError, match=r"Beauty\.item\.json: the title of item 2 is \['a'\]"):
        titles_of(file, index)
