"""Users from a file: whole, as they came, or told which line is wrong."""

import datetime
import decimal
import gzip
import io
import json
import os
import threading
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.serving import user_file
from atspeed_jax.serving.row_file import STANDARD_INPUT
from atspeed_jax.serving.user_file import UserFile, UserFileError


def read(path, items=4, said=None, **how):
    return list(UserFile(path, items, **how).users(print if said is None else said.append))


GOOD = [{"user": 7, "items": [0, 3]}, {"user": "x", "items": []}]
BAD = [
    "{",
    "[1]",
    '{"user": 1}',
    '{"user": 1, "items": 3}',
    '{"user": 1, "items": [true]}',
    '{"user": 1, "items": [3, 1.5]}',
    '{"user": 1, "items": [3, NaN]}',
    '{"user": 1, "items": [3, "01"]}',
    '{"user": 1, "items": [3, "B01"]}',
    '{"user": 1, "items": [null]}',
    '{"user": 1, "items": "1 2"}',
    '{"user": null, "items": [1]}',
    '{"items": [1]}',
    '{"user": [1], "items": [1]}',
    '{"user": NaN, "items": [1]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[:30])
def test_a_line_that_is_no_user_is_named_or_left_out(tmp_path, bad):
    path = tmp_path / "u.jsonl"
    path.write_text("\n".join([json.dumps(GOOD[0]), "", bad, json.dumps(GOOD[1])]) + "\n")
    with pytest.raises(UserFileError, match=r"u.jsonl, line 3: .*--on_bad=skip"):
        read(path)
    said = []
    users = read(path, said=said, on_bad="skip")
    assert [user.user for user in users] == [7, "x"]
    assert [user.items.tolist() for user in users] == [[0, 3], []]
    assert len(said) == 2
    assert "line 3" in said[0]
    assert bad[:100] in said[0]
    assert said[1] == f"left out of {path}: 1 lines that are no user, 0 unknown items of 0 users"
    assert UserFile(path, 4, on_bad="skip").check() == 2
    with pytest.raises(UserFileError, match=r"u.jsonl, line 3: .*--on_bad=skip"):
        UserFile(path, 4).check()


def test_a_user_is_never_changed_by_how_it_is_written(tmp_path):
    path = tmp_path / "u.jsonl"
    path.write_bytes('{"user": "Zoë", "items": []}\n'.encode() + '{"user": "Zoë", "items": []}\n'.encode("latin-1"))
    said = []
    assert [user.user for user in read(path, said=said, on_bad="skip")] == ["Zoë"]
    assert len(said) == 2
    assert "line 2: 'utf-8' codec can't decode byte 0xeb" in said[0]
    assert "Zo\ufffd" in said[0]


@pytest.mark.parametrize("user", [b"x", datetime.datetime(2026, 1, 1), decimal.Decimal("1.5")])
def test_a_parquet_user_that_json_cannot_hold_is_named(tmp_path, user):
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"items": [[0]], "user": [user]}), path)
    with pytest.raises(UserFileError, match=r"u.parquet, line 1: user .* is not a string, finite number or bool"):
        read(path)


def test_parquet_is_read_like_lines(tmp_path):
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"items": [row["items"] for row in GOOD], "user": [7, 8]}), path)
    users = read(path)
    assert [(user.user, user.items.tolist()) for user in users] == [(7, [0, 3]), (8, [])]
    assert UserFile(path, 4).check() == 2
    (tmp_path / "v.parquet").write_text("no parquet")
    pq.write_table(pa.table({"who": [1]}), tmp_path / "w.parquet")
    for name in ("v", "w"):
        with pytest.raises(UserFileError, match=f"{name}.parquet cannot be read as parquet with columns user and it"):
            read(tmp_path / f"{name}.parquet")
    with pytest.raises(UserFileError, match="there is no input file"):
        UserFile(tmp_path / "none.jsonl", 4).check()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_unknown_item_of_a_history_is_named_or_left_out(tmp_path, kind):
    histories = {"ann": [0, 9, 3, -1], "bob": [2], "cy": [2**40], "dee": []}
    path, said = tmp_path / f"u.{kind}", []
    if kind == "parquet":
        pq.write_table(pa.table({"user": list(histories), "items": list(histories.values())}), path)
    else:
        histories["cy"].append(2**80)  # no int64
        lines = [json.dumps({"user": user, "items": items}) for user, items in histories.items()]
        path.write_text("\n".join(lines))
    message = "line 1: item 9 of user 'ann' is not in the.* 0 to 3; item .* from 0.*subtract 1.*--on_unknown=skip"
    with pytest.raises(UserFileError, match=message):
        read(path)
    users = read(path, said=said, on_unknown="skip")
    assert {user.user: user.items.tolist() for user in users} == {"ann": [0, 3], "bob": [2], "cy": [], "dee": []}
    unknown = 4 if kind == "jsonl" else 3
    assert said == [f"left out of {path}: 0 lines that are no user, {unknown} unknown items of 2 users: 'ann', 'cy'"]


def test_the_first_users_with_unknown_items_are_named(tmp_path):
    path, said = tmp_path / "u.jsonl", []
    path.write_bytes(lines_of({"user": f"u{n}", "items": [9] * (n % 2)} for n in range(20)))
    read(path, said=said, on_unknown="skip")
    named = "'u1', 'u3', 'u5', 'u7', 'u9', ..."
    assert said == [f"left out of {path}: 0 lines that are no user, 10 unknown items of 10 users: {named}"]


@pytest.mark.parametrize(
    "begins", ["user,items", "1;[3, 4]", "{", "\x93NUMPY"], ids=["header", "semicolons", "spread over lines", "binary"]
)
def test_a_file_of_another_format_is_told_what_is_read(tmp_path, begins):
    path = tmp_path / "u.csv"
    path.write_bytes(begins.encode("latin-1") + b"\nanna,1 2 3\n")
    message = (
        "u.csv, line 1: the file begins with .*, which is no JSON; give JSON lines in UTF-8, plain or gzipped, or a"
    )
    with pytest.raises(UserFileError, match=message):
        UserFile(path, 4).check()
    assert UserFile(path, 4, on_bad="skip").check() == 0


def test_users_who_come_again_are_counted_once_at_the_end(tmp_path):
    path, said = tmp_path / "u.jsonl", []
    path.write_bytes(lines_of({"user": user, "items": [0]} for user in ("a", 1, "a", True, 1.0, "1", "a", 1)))
    assert len(read(path, said=said)) == 8
    assert said == [f"note: 3 lines of {path} repeat the user of a line before; each line gets a list"]
    assert UserFile(path, 4).check() == 8


def lines_of(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def given(users) -> list:
    return [(user.user, user.items.tolist()) for user in users]


WHAT_GOOD_HOLDS = [(7, [0, 3]), ("x", [])]


@pytest.mark.parametrize("number", ["3.0", '"3"', "3e0"])
def test_whole_numbers_are_items_however_they_are_written(tmp_path, number):
    path = tmp_path / "u.jsonl"
    path.write_text(f'{{"user": 7, "items": [0, {number}]}}\n{{"user": 8, "items": [4.0]}}\n')
    assert given(read(path, 5)) == [(7, [0, 3]), (8, [4])]
    with pytest.raises(UserFileError, match="line 2: item 4 of user 8 is not in the catalog"):
        read(path)


@pytest.mark.parametrize("items", [pa.float64(), pa.int16(), pa.uint64(), pa.string()])
def test_whole_numbers_of_any_column_are_items(tmp_path, items):
    made = {pa.string(): [["0", "3"]], pa.float64(): [[0.0, 3.0]]}.get(items, [[0, 3]])
    for name in ("u.PARQUET", "u.parquet", "u"):  # what it is, its first bytes say
        pq.write_table(pa.table({"user": [7], "items": pa.array(made, pa.list_(items))}), tmp_path / name)
        assert given(read(tmp_path / name)) == [(7, [0, 3])]
    for gap in ([[0, None]], [None]):
        pq.write_table(pa.table({"user": [7], "items": pa.array(gap, pa.list_(pa.float64()))}), tmp_path / name)
        with pytest.raises(UserFileError, match=r"line 1: (item None is not|expected)"):
            read(tmp_path / name)


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize("make", [lambda one, two: BOM + one + two, lambda one, two: BOM + one + BOM + two + BOM])
def test_no_user_is_lost_to_a_byte_order_mark(tmp_path, on_bad, make):
    path = tmp_path / "u.jsonl"
    path.write_bytes(make(*map(lines_of, ([row] for row in GOOD))))
    assert given(read(path, on_bad=on_bad)) == WHAT_GOOD_HOLDS


@pytest.mark.parametrize("name", ["u.jsonl.gz", "u.GZ", "u.jsonl"])
def test_gzipped_lines_are_read_whatever_their_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(BOM + lines_of(GOOD[:1])) + gzip.compress(lines_of(GOOD[1:])))
    assert given(read(path)) == WHAT_GOOD_HOLDS
    assert UserFile(path, 4).check() == 2
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:30] + b"?" + whole[31:]):
        path.write_bytes(damaged)
        with pytest.raises(UserFileError, match=f"{name} cannot be read .*; is it whole?"):
            read(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x28\xb5\x2f\xfd....", "compressed by zstd"),
        (b"BZh9....", "compressed by bzip2"),
        (b"\xfd7zXZ\x00...", "compressed by xz"),
        (b"PK\x03\x04....", "a zip archive"),
        ('{"user": 1, "items": []}'.encode("utf-16"), "text in UTF-16"),
        (gzip.compress(gzip.compress(b'{"user": 1, "items": []}')), "gzipped twice"),
        (gzip.compress(b"PAR1....", mtime=0), "parquet, which is read from a file that is not compressed"),
    ],
    # not the bytes: gzip writes the time among them
    ids=["zstd", "bzip2", "xz", "zip", "UTF-16", "gzipped twice", "gzipped parquet"],
)
def test_what_cannot_be_read_is_named(tmp_path, content, what):
    path = tmp_path / "u.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserFileError, match=f"u.jsonl is {what}; give JSON lines in UTF-8, plain or gzipped, or a par"):
        read(path, on_bad="skip")


def test_standard_input_is_read_once(tmp_path, monkeypatch):
    for content in (lines_of(GOOD), gzip.compress(BOM + lines_of(GOOD))):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(content))))
        file = UserFile(STANDARD_INPUT, 4)
        assert file.check() is None
        assert given(file.users(print)) == WHAT_GOOD_HOLDS
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"PAR1...."))))
    with pytest.raises(UserFileError, match="- is parquet, which is read from a file"):
        list(UserFile(STANDARD_INPUT, 4).users(print))
    monkeypatch.setattr(user_file.jax, "process_count", lambda: 2)
    with pytest.raises(UserFileError, match="--input=-: 2 processes cannot share a stream; give a file"):
        UserFile(STANDARD_INPUT, 4).check()


def test_a_pipe_is_a_stream(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(lines_of(GOOD),), daemon=True)
    assert UserFile(path, 4).check() is None
    writer.start()
    assert given(read(path)) == WHAT_GOOD_HOLDS
    writer.join()
    with pytest.raises(UserFileError, match=r"there is no input file .*; give JSON lines"):
        UserFile(tmp_path, 4).check()


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([1, "x"], "line 2: user 'x' is no int64 as the users before.*--output that ends in .jsonl"),
        ([1, 2.5], "line 2: user 2.5 is no int64"),
        ([True, 1], "line 2: user 1 is no bool"),
        ([1, 2**70], f"line 2: user {2**70} does not fit a parquet column"),
        (["\ud800"], "line 1: user .* does not fit a parquet column"),
        ([1, 2], None),
    ],
)
def test_users_that_cannot_share_a_column_are_refused_before_any_work(tmp_path, users, message):
    path = tmp_path / "u.jsonl"
    path.write_bytes(lines_of({"user": user, "items": []} for user in users))
    assert UserFile(path, 4).check() == len(users)
    if message is None:
        assert UserFile(path, 4, one_type=True).check() == len(users)
    else:
        with pytest.raises(UserFileError, match=message):
            UserFile(path, 4, one_type=True).check()


@pytest.mark.parametrize(
    ("line", "how"),
    [
        (f'{{"user": 1, "items": [{"7" * 4000}]}}', {}),
        ('{"user": 1, "items": [1e300]}', {}),
        (f'{{"user": {"7" * 4000}, "items": [9]}}', {}),
        (f'{{"user": "{"u" * 4000}", "items": [9]}}', {}),
        (f'{{"user": ["{"u" * 4000}"], "items": [1]}}', {}),
        (f'{{"user": 1, "items": ["{"u" * 4000}"]}}', {}),
        (f'{{"user": {"7" * 4000}, "items": [1]}}', {"one_type": True}),
    ],
    ids=range(7),
)
def test_a_long_value_is_cut_in_the_message(tmp_path, line, how):
    (tmp_path / "u.jsonl").write_text(line + "\n")
    with pytest.raises(UserFileError, match=r"line 1: .*; ") as told:
        read(tmp_path / "u.jsonl", **how)
    assert len(str(told.value)) < 640 + len(str(tmp_path))
    assert "..." in str(told.value)
