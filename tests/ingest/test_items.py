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
    (warning,) = load("product,item_id,name,Price\n1,x,One, \n2,y, ,3.50\n")
    assert warning.endswith("1 items of the log have neither title nor text, such as '2'")
    assert connection.execute("FROM item_texts").fetchall() == [("1", "One", None), ("2", None, "3.50")]


def test_vectors(connection, load):
    lines = [json.dumps({"product": n, "vector": [n, 0.5]}) for n in (1, 2)]
    load("\n".join(lines), "items.jsonl")
    assert connection.execute("SELECT vector FROM item_texts").fetchall() == [([1.0, 0.5],), ([2.0, 0.5],)]


def test_items_that_the_file_lacks_are_counted(load):
    (warning,) = load("product,title\n2,b\n3,c\n")
    assert warning.endswith("items.csv: 1 of 2 items of the log are not here, such as '1'")


def test_the_first_row_of_an_item_counts(connection, load):
    (warning,) = load("product,title\n1,a\n2,b\n1,c\n1,d\n")
    assert "2 rows are of an item that has a row already, such as row 3 of '1'" in warning
    assert connection.execute("FROM item_texts ORDER BY name").fetchall() == [("1", "a"), ("2", "b")]


def test_items_without_text_or_vector_are_counted(load):
    texts, vectors = load("product,title,text,vector\n1,, ,1;2\n2,b,,\n3,,,\n")
    assert texts.endswith("1 items of the log have neither title nor text, such as '1'")
    assert vectors.endswith("1 items of the log have no vector, such as '2'")


def test_lists_of_texts_become_one_text(connection, load):
    lines = [
        {"product": 1, "description": ["a", "b"], "categories": [["Beauty", "Hair"], ["Gifts"]]},
        {"product": 2, "description": "[no list", "categories": []},
    ]
    load("\n".join(map(json.dumps, lines)), "items.jsonl")
    assert connection.execute("SELECT text, category FROM item_texts ORDER BY name").fetchall() == [
        ("a b", "Beauty, Hair, Gifts"),
        ("[no list", None),
    ]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("product,title\n", "items.csv", "no rows at all; expected a row per item"),
        ('{"product": 1, "vector": []}\n', "items.jsonl", "the vectors have no numbers; give vectors, or leave"),
        ("product\n1\n", "items.csv", "no column is known as title, text or another property; it has product"),
        (
            "thing,title\n1,a\n",
            "items.csv",
            "no column is known as the name of the item; it has thing, title.*--item_name=",
        ),
        ("product,title\n1,a\n ,b\n", "items.csv", r"line 3: product ' ': expected the name of an item \(1 rows"),
        ("product,vector\n1,1 2\n2,[3]\n", "items.csv", "row 2: the vector of item '2' has 1 numbers, those of 1"),
        ("product,vector\n1,1 2\n2,nan 2\n", "items.csv", "row 2: the vector of item '2' has an entry that is no fin"),
        ("product,vector\n1,1 2\n2,soft\n", "items.csv", "row 2: the vector of item '2' has an entry that is no fin"),
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


def test_a_file_without_a_known_title_is_warned_of(connection, load):
    (warning,) = load("product,label,text\n1,One,a\n2,Two,b\n")
    assert "no column is known as the title, so that lists have none; it has also label." in warning
    assert "--title=NAME" in warning
    connection.execute("DROP TABLE items; DROP TABLE item_texts")
    assert load("product,text\n1,a\n2,b\n") == [], "no column is left that could be the title"


def test_items_in_no_event_are_counted(connection, table):
    connection.execute("CREATE TABLE items AS FROM (VALUES (0, 1, '1'), (1, 2, '2')) t(i, name, text)")
    said = []
    items = table("product,title\n1,a\n2,b\n3,c\n4,d\n", "items.csv")
    assert load_items(connection, items, Columns(), "product", said.append) == []
    assert "items.csv: 2 items are in no event, such as '3', and are left out; launch.build_ids --assign=" in said[-1]


@pytest.mark.parametrize(
    ("log", "file", "message"),
    [
        ("007", "7", "'007' of the log may be '7' of this file"),
        ("12", "12.0", "'12' of the log may be '12.0' of this file"),
        ("L\u00f6ffel", "Lo\u0308ffel", r"'L\\xf6ffel' of the log may be 'Lo\\u0308ffel' of this file"),
        ("sku 1", "SKU\u00a01", r"'sku 1' of the log may be 'SKU\\xa01' of this file: write names alike"),
    ],
)
def test_a_name_that_is_written_otherwise_is_shown(connection, table, log, file, message):
    connection.execute("CREATE TABLE items AS SELECT 0 AS i, ? AS name, ? AS text", [log, log])
    items = table(f"product,title\n{file},a\n", "items.csv")
    with pytest.raises(IngestError, match=message):
        load_items(connection, items, Columns(), "product", lambda line: None)
    connection.execute("INSERT INTO items VALUES (1, 'x', 'x')")
    connection.execute("DROP TABLE item_texts")
    both = table(f"product,title\n{file},a\nx,b\n", "both.csv")
    (warning,) = load_items(connection, both, Columns(), "product", lambda line: None)
    assert "1 of 2 items of the log are not here" in warning
    assert "of the log may be" in warning
