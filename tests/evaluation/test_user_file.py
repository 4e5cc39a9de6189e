"""Users from a file: whole, as they came, or told which line is wrong."""

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.evaluation.user_file import UserFileError, count_users, read_users

STRICT = {"on_bad": "error", "on_unknown": "error", "report": print}

GOOD = [{"user": 7, "items": [0, 3]}, {"user": "x", "items": []}]
BAD = [
    "{",
    "[1]",
    '{"user": 1}',
    '{"user": 1, "items": 3}',
    '{"user": 1, "items": [true]}',
    '{"user": 1, "items": [4, 1.0]}',
    '{"user": [1], "items": [1]}',
    '{"user": NaN, "items": [1]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[:30])
def test_a_line_that_is_no_user_is_named_or_left_out(tmp_path, bad):
    path = tmp_path / "u.jsonl"
    path.write_text("\n".join([json.dumps(GOOD[0]), "", bad, json.dumps(GOOD[1])]) + "\n")
    with pytest.raises(UserFileError, match=r"u.jsonl, line 3: .*--on_bad=skip"):
        list(read_users(path, 4, **STRICT))
    said = []
    users = list(read_users(path, 4, on_bad="skip", on_unknown="error", report=said.append))
    assert [user.user for user in users] == [7, "x"] and [user.items.tolist() for user in users] == [[0, 3], []]
    assert len(said) == 2 and "line 3" in said[0] and bad[:100] in said[0]
    assert said[1] == f"left out of {path}: 1 lines that are no user, 0 unknown items of 0 users"
    assert count_users(path) == 3


def test_a_user_is_never_changed_by_how_it_is_written(tmp_path):
    path = tmp_path / "u.jsonl"
    path.write_bytes('{"user": "Zoë", "items": []}\n'.encode() + '{"user": "Zoë", "items": []}\n'.encode("latin-1"))
    said = []
    assert [user.user for user in read_users(path, 4, on_bad="skip", on_unknown="error", report=said.append)] == ["Zoë"]
    assert len(said) == 2 and "line 2: 'utf-8' codec can't decode byte 0xeb" in said[0] and "Zo\ufffd" in said[0]


@pytest.mark.parametrize("user", [b"x", datetime.datetime(2026, 1, 1), decimal.Decimal("1.5")])
def test_a_parquet_user_that_json_cannot_hold_is_named(tmp_path, user):
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"items": [[0]], "user": [user]}), path)
    with pytest.raises(UserFileError, match=r"u.parquet, line 1: user .* is not a string, finite number, bool or nu"):
        list(read_users(path, 4, **STRICT))


def test_parquet_is_read_like_lines(tmp_path):
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"items": [row["items"] for row in GOOD], "user": [7, 8]}), path)
    users = list(read_users(path, 4, **STRICT))
    assert [(user.user, user.items.tolist()) for user in users] == [(7, [0, 3]), (8, [])] and count_users(path) == 2
    (tmp_path / "v.parquet").write_text("no parquet")
    pq.write_table(pa.table({"who": [1]}), tmp_path / "w.parquet")
    for name in ("v", "w"):
        with pytest.raises(UserFileError, match=f"{name}.parquet cannot be read as parquet with columns user and it"):
            list(read_users(tmp_path / f"{name}.parquet", 4, **STRICT))
    with pytest.raises(UserFileError, match="there is no input file"):
        list(read_users(tmp_path / "none.jsonl", 4, **STRICT))


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
    with pytest.raises(UserFileError, match="line 1: item 9 of user 'ann' is not in the.* 0 to 3; .*--on_unknown=skip"):
        list(read_users(path, 4, **STRICT))
    users = list(read_users(path, 4, on_bad="error", on_unknown="skip", report=said.append))
    assert {user.user: user.items.tolist() for user in users} == {"ann": [0, 3], "bob": [2], "cy": [], "dee": []}
    unknown = 4 if kind == "jsonl" else 3
    assert said == [f"left out of {path}: 0 lines that are no user, {unknown} unknown items of 2 users"]
