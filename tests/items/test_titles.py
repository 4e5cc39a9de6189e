import json

import pytest

from atspeed_jax.items.titles import TitlesError, read_titles, with_titles


def test_titles_as_texts_or_in_objects(tmp_path):
    path = tmp_path / "titles.json"
    assert read_titles(path, 3) == {}
    path.write_text(json.dumps({"0": "Lipstick", "1": " ", "2": {"title": "Soap", "brand": "x"}}))
    assert read_titles(path, 3) == {0: "Lipstick", 2: "Soap"}
    path.write_text("\ufeff" + json.dumps({"0": {"title": 1984}, "1": {"brand": "x"}, "2": {"title": None}}), "utf-8")
    assert read_titles(path, 3) == {0: "1984"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read"),
        ("[]", "holds a list; expected"),
        ('{"3": "a"}', "key '3' is no item 0..2; expected"),
        ('{"-1": "a"}', "key '-1' is no item"),
        ('{"lip": "a"}', "key 'lip' is no item"),
        ('{"01": "a"}', "key '01' is no item"),
        ('{"' + 5000 * "1" + '": "a"}', "key '1+' is no item"),
        (r'{"1": "\ud800"}', r"the title of item 1, '\\ud800', is no Unicode text"),
        ('{"1": [5]}', r"the title of item 1 is \[5\]; expected"),
        ('{"1": {"name": "a"}}', "no entry has a title; expected"),
        (2000 * "[" + 2000 * "]", "cannot be read|holds a list"),
    ],
)
def test_another_content_is_named(tmp_path, content, message):
    path = tmp_path / "titles.json"
    path.write_text(content)
    with pytest.raises(TitlesError, match=f"titles.json.*{message}"):
        read_titles(path, 3)


def test_known_titles_stand_beside_their_items():
    item = {"item": 1, "codes": [0]}
    (example,) = with_titles([{"user": 4, "history": [item, {"item": 2, "codes": [1]}], "later": []}], {1: "Soap"})
    assert example == {"user": 4, "history": [item | {"title": "Soap"}, {"item": 2, "codes": [1]}], "later": []}
    assert "title" not in item
