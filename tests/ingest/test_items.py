import json

import pytest

from atspeed_jax.ingest.items import load_items
from atspeed_jax.ingest.settings import Columns, IngestError


@pytest.fixture
def load(connection, table):
    """load(text, name, **columns): the warnings of an item file, for a log of the items 1 and 2."""

    def loaded(text, name="items.csv", **columns):
        connection.execute("CREATE TABLE items AS FROM (VALUES (0, 1, '1'), (1, 2, '2')) t(i, name, text)")
        return load_items(connection, table(text, name), Columns(**columns), "product", lambda line: None)

    return loaded


def test_properties_are_found_and_blank_ones_are_null(connection, load):
    assert load("product,item_id,name,Price\n1,x,One, \n2,y, ,3.50\n") == []
    assert connection.execute("FROM item_texts").fetchall() == [("1", "One", None), ("2", None, "3.50")]


def test_vectors(connection, load):
    lines = [json.dumps({"product": n, "vector": [n, 0.5]}) for n in (1, 2)]
    load("\n".join(lines), "items.jsonl")
    assert connection.execute("SELECT vector FROM item_texts").fetchall() == [([1.0, 0.5],), ([2.0, 0.5],)]


def test_items_that_the_file_lacks_are_counted(load):
    (warning,) = load("product,title\n2,b\n3,c\n")
    assert warning.endswith("items.csv: 1 of 2 items of the log are not here, such as '1'")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("product\n1\n", "items.csv", "no column is known as title, text or another property; it has product"),
        (
            "thing,title\n1,a\n",
            "items.csv",
            "no column is known as the item_name; it has thing, title.*--item_name=",
        ),
        ("product,title\n1,a\n ,b\n", "items.csv", r"line 3: product ' ': expected the name of an item \(1 rows"),
        ("product,title\n1,a\n1,b\n", "items.csv", "item '1' has 2 rows; keep one of each item"),
        ("product,title\nx,a\n", "items.csv", "none of the 2 items of the log is here; the log has '1', this file 'x'"),
        ('{"product": 1, "vector": [1, null]}\n', "items.jsonl", "vector of item '1' has an entry that is no finite"),
        (
            '{"product": 1, "vector": [1]}\n{"product": 2, "vector": [1, 2]}\n',
            "items.jsonl",
            "vector of item .* has . numbers, those of 1 items have .; give vectors of one width",
        ),
    ],
)
def test_item_files_that_cannot_be_used_are_refused(load, text, name, message):
    with pytest.raises(IngestError, match=message):
        load(text, name)
