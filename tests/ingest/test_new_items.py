"""Items of a catalog that grows; tests/ids/test_assign.py has what becomes of them."""

import json

import pytest

from atspeed_jax.ingest.new_items import read_new_items
from atspeed_jax.ingest.settings import IngestError


@pytest.mark.parametrize(
    ("header", "told", "found"),
    [
        ("name,title", {}, ("n", "t", None)),
        ("item,title", {}, ("n", "t", None)),
        ("sku,name,brand", {}, ("n", "t", None)),
        ("code,label,Price", {"item": "code", "title": "label"}, ("n", "t", "9")),
        ("name,title,price", {"title": "name", "item_name": "title"}, ("t", "n", "9")),
        ("sku,title", {"item_name": "gone", "title": "gone too"}, ("n", "t", None)),
    ],
)
def test_columns_are_those_that_were_told_or_usual_ones(tmp_path, header, told, found):
    (tmp_path / "ingest.json").write_text(json.dumps({"settings": {"columns": told, "files": {}}}))
    (tmp_path / "new.csv").write_text(f"{header}\n{'n,t,9'[: 3 + 2 * (header.count(',') - 1)]}\n")
    said = []
    (row,) = read_new_items(str(tmp_path / "new.csv"), tmp_path, said.append).to_pylist()
    assert (row["name"], row["title"], row.get("price")) == found
    assert said[0].startswith(f"{tmp_path}/new.csv: item_name = ")


def test_warnings_are_said_and_files_without_names_refused(tmp_path):
    file = tmp_path / "new.csv"
    file.write_text("sku,title\nA,one\nA,two\n")
    said = []
    assert read_new_items(str(file), tmp_path, said.append)["title"].to_pylist() == ["one"]
    assert said[-1].startswith("warning: ")
    file.write_text("price\n9\n")
    with pytest.raises(IngestError, match="no column is known as the name of the item; it has price"):
        read_new_items(str(file), tmp_path, said.append)
