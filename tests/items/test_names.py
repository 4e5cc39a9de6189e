"""Names of items in the directory of a run."""

import json

import pytest

from atspeed_jax.items.names import NamesError, check_names, read_names


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
