"""Files of items that may, or may not, be listed."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.filter_file import (
    FilterFileError,
    UserFilters,
    items_for_all,
    items_of_list,
    read_filter,
)

NAMES = ItemNames(4, ("B0", "B1", "B2", "B3"))
PER_USER = [{"user": 7, "items": ["B2", "B0"]}, {"user": "x", "items": []}]


def read(path, names=NAMES, on_unknown="error", said=None):
    return read_filter(path, names, on_unknown, print if said is None else said.append)


def lines_of(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("content", [b"B2\n\n  B0 \nB2\n", b'\n["B2",\n "B0"]', gzip.compress(b"B0\nB2", mtime=0)])
def test_a_list_for_all_users(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    found = read(tmp_path / "f")
    assert (found.for_all.tolist(), found.by_user, found.of(7)) == ([0, 2], {}, None)


def test_lists_of_parquet(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"item": ["B2", "B0"]}), path)
    assert read(path).for_all.tolist() == [0, 2]
    pq.write_table(pa.table({"user": [7, 8], "items": [["B2", "B0"], []]}), path)
    found = read(path)
    assert (found.for_all, found.of(7).tolist(), found.of("8").tolist(), found.of(9)) == (None, [0, 2], [], None)
    pq.write_table(pa.table({"name": ["B2"]}), path)
    with pytest.raises(FilterFileError, match="columns user and items or item"):
        read(path)


def test_lists_per_user(tmp_path):
    (tmp_path / "f").write_bytes(lines_of(PER_USER))
    found = read(tmp_path / "f")
    assert (found.for_all, found.of("7").tolist(), found.of("x").tolist(), found.of(8)) == (None, [0, 2], [], None)
    (tmp_path / "f").write_bytes(b"3\n1\n")
    assert read(tmp_path / "f", ItemNames(4)).for_all.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"B1\nB9\n",
            "f, line 2: item 'B9' is not in the catalog, whose 4 items are called such as 'B0'; .*--on_unknown",
        ),
        (b'["B1", null]', "f: item None is not the name of an item, .*; give an item per line"),
        (b'["B1"', "f begins as a JSON list, but is none"),
        (b'{"user": 1}\n', r"f, line 1: .*; expected \{.user.: ..., .items.: \[...\]\}"),
        (b'{"user": 1', "f, line 1: .* is no JSON"),
        (lines_of([*PER_USER, {"user": "7", "items": []}]), "f, line 3: user '7' has a list already"),
        (b"\n", "f holds no item"),
        (b"\xff\n", "f, line 1: .* is no UTF-8"),
        (b"PK\x03\x04", "f is a zip archive; give an item per line"),
    ],
)
def test_what_is_no_list_of_items_is_refused(tmp_path, content, message):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(FilterFileError, match=message):
        read(tmp_path / "f")
    with pytest.raises(FilterFileError, match=r"there is no file .*none; give an item per line"):
        read(tmp_path / "none")


def test_unknown_items_may_be_left_out(tmp_path):
    said = []
    (tmp_path / "f").write_bytes(lines_of([{"user": 1, "items": ["B9", "B1", 9]}]))
    assert read(tmp_path / "f", on_unknown="skip", said=said).of(1).tolist() == [1]
    assert said == [f"left out of {tmp_path / 'f'}: 2 unknown items, such as 'B9'"]


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    prints = []
    for content in (
        b"B1\nB2",
        b"B2\nB1\nB2",
        b"B2",
        lines_of(PER_USER),
        lines_of(PER_USER[::-1]),
        lines_of(PER_USER[:1]),
    ):
        (tmp_path / "f").write_bytes(content)
        prints.append(read(tmp_path / "f").fingerprint)
    assert prints[0] == prints[1]
    assert prints[3] == prints[4]
    assert len(set(prints)) == 4


def test_who_lacks_an_allow_list_is_named_or_gets_all(tmp_path):
    (tmp_path / "f").write_bytes(lines_of(PER_USER))
    file = read(tmp_path / "f")
    filters = UserFilters(allow=file)
    assert [part.tolist() for part in filters.of(7)] == [[], [0, 2]]
    with pytest.raises(FilterFileError, match=r"user 8 has no list in .*f; add one, or .*--without_allow=all"):
        filters.of(8)
    excluded, allowed = UserFilters(file, file, "all").of(8)
    assert (excluded.tolist(), allowed) == ([], None)
    excluded, allowed = UserFilters(exclude=file).of(7)
    assert (excluded.tolist(), allowed) == ([0, 2], None)


def test_lists_of_a_program(tmp_path):
    assert items_for_all(None, NAMES, "allow") is None
    assert items_for_all(["B2", np.str_("B0")], NAMES, "allow").tolist() == [0, 2]
    (tmp_path / "f").write_bytes(b"B1")
    assert items_for_all(tmp_path / "f", NAMES, "allow").tolist() == [1]
    (tmp_path / "f").write_bytes(lines_of(PER_USER))
    with pytest.raises(FilterFileError, match=r"allow=.*f' has lists per user: give these with the histories"):
        items_for_all(str(tmp_path / "f"), NAMES, "allow")
    for given, message in (
        (5, "what is 5: expected a list"),
        ({"B1": 1}, "what is .*expected a list"),
        (["B9"], "what: item 'B9'"),
        ([1.5], "what: item 1.5"),
    ):
        with pytest.raises(FilterFileError, match=message):
            items_of_list(given, NAMES, "what")
