import json

import pytest

from atspeed_jax.items.index_file import IndexSettings, SourceError, read_index, read_index_with_gaps, read_object


def written(directory, entries):
    file = directory / "shop.index.json"
    file.write_text(json.dumps(entries))
    return file


def test_items_of_codes_and_codes_of_items_are_one_index(tmp_path):
    by_item, by_id = {"0": [340, 6, 1], "1": [3, 0, 2]}, {"3,0,2": 1, "340,6,1": 0}
    spelling = ("<s_a_{}>", "<s_b_{}>", "<s_c_{}>")
    for entries in (by_item, by_id):
        index = read_index(written(tmp_path, entries), IndexSettings(spelling=spelling))
        assert (index.codes.tolist(), index.spelling) == ([[340, 6, 1], [3, 0, 2]], spelling)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"1,2": 0, "3,4": 0}, "ids [1, 2] and [3,4] are both item 0"),
        ({"1,2": 1, "3,4": 2}, "item 0 is missing"),
        ({"1,2": 0, "3": 1}, "key '1,2' is not an item number"),
    ],
)
def test_bad_items(tmp_path, entries, message):
    with pytest.raises(SourceError) as error:
        read_index(written(tmp_path, entries))
    assert f"shop.index.json: {message}" in str(error.value)


def test_gaps_are_items_that_the_index_leaves_out(tmp_path):
    for entries in ({"4": [3, 0], "0": [1, 2]}, {"3,0": 4, "1,2": 0}):
        index = read_index_with_gaps(written(tmp_path, entries))
        assert (index.numbers.tolist(), index.codes.tolist()) == ([0, 4], [[1, 2], [3, 0]])
        with pytest.raises(SourceError, match=r"item 1 is missing; 2 entries must be the items 0\.\.1\. Add it"):
            read_index(written(tmp_path, entries))
    assert read_index_with_gaps(written(tmp_path, {"1": [3, 0], "0": [1, 2]})).numbers is None
    with pytest.raises(SourceError, match="item 7 has 1 codes, item 2 has 2"):
        read_index_with_gaps(written(tmp_path, {"2": [3, 0], "7": [1]}))


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match=r"no\.json: no such file"):
        read_index(tmp_path / "no.json")


def test_objects_say_what_their_keys_are(tmp_path):
    (tmp_path / "users.json").write_text('{"4": [], "4": [1]}')
    with pytest.raises(SourceError, match=r"users\.json: user 4 has two entries; keep one"):
        read_object(tmp_path / "users.json", "user")
