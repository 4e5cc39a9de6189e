"""A batch job's file: the lists of evaluation, in order, once each, whatever interrupts it."""

import dataclasses
import datetime
import decimal
import json

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.data.batches import prompt_batches
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.evaluation.decode_users import decode_users
from atspeed_jax.evaluation.decoders import plain, speculative
from atspeed_jax.evaluation.recommend import RecommendError, User, count_users, lists_of, read_users, recommend

pytestmark = pytest.mark.usefixtures("quick_compilation")


def stand_in(users):
    """Two places per user, the second empty for an even sum."""
    sums = np.array([int(np.sum(user.items)) for user in users])
    return np.stack([sums, np.where(sums % 2, sums + 1, -1)], 1), np.stack([-sums / 4, -sums / 2], 1)


def line_of(user: User) -> dict:
    (items, scores), found = (row[0] for row in stand_in([user])), 1 + int(np.sum(user.items)) % 2
    return {"user": user.user, "items": items[:found].tolist(), "scores": scores[:found].tolist()}


USERS = [User(f"u{n}", np.arange(n % 5)) for n in range(11)]


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_line_per_user_in_order(tmp_path):
    told = []
    assert recommend(USERS, stand_in, tmp_path / "r.jsonl", chunk=4, fingerprint="a", progress=told.append) == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]
    assert told == [0, 4, 4, 3] and [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize("chunk", [4, 11, 50])
def test_parquet_holds_what_the_lines_hold(tmp_path, chunk):
    how = {"chunk": chunk, "fingerprint": "a", "progress": abs}
    assert recommend(USERS, stand_in, tmp_path / "r.parquet", **how) == 11
    assert pq.read_table(tmp_path / "r.parquet").to_pylist() == [line_of(user) for user in USERS]
    assert recommend([], stand_in, tmp_path / "none.parquet", **how) == 0
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    mixed = [User(1, np.arange(2)), User("x", np.arange(2))]
    with pytest.raises(
        RecommendError, match="m.parquet: these users cannot share a par.* take the lines from .*m.parquet.part"
    ):
        recommend(mixed, stand_in, tmp_path / "m.parquet", **how)
    names = {path.name for path in tmp_path.iterdir()} - {".m.parquet.partial"}
    assert names == {"r.parquet", "none.parquet", "m.parquet.partial", "m.parquet.partial.json"}
    assert recommend(mixed[:1], stand_in, tmp_path / "r.jsonl", **how) == 1


@pytest.mark.parametrize("torn", ["", '{"user": "u4", "it'])
def test_an_interrupted_job_goes_on_without_gaps_or_repeats(tmp_path, torn):
    calls = []

    def dies(users):
        calls.append(len(users))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stand_in(users)

    with pytest.raises(KeyboardInterrupt):
        recommend(USERS, dies, tmp_path / "r.jsonl", chunk=4, fingerprint="a", progress=abs)
    assert not (tmp_path / "r.jsonl").exists()
    with open(tmp_path / "r.jsonl.partial", "a") as file:
        file.write(torn)  # what a kill in the middle of a write leaves
    assert recommend(USERS, dies, tmp_path / "r.jsonl", chunk=4, fingerprint="a", progress=abs) == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]
    assert calls == [4, 4, 4, 3]  # nobody of the first chunk again


def test_nothing_is_mixed_or_overwritten(tmp_path):
    (tmp_path / "r.jsonl").write_text("precious")
    with pytest.raises(RecommendError, match="r.jsonl exists; choose another"):
        recommend(USERS, stand_in, tmp_path / "r.jsonl", chunk=4, fingerprint="a", progress=abs)

    def dies(users):
        if len(users) < 4:
            raise KeyboardInterrupt
        return stand_in(users)

    with pytest.raises(KeyboardInterrupt):
        recommend(USERS, dies, tmp_path / "s.jsonl", chunk=4, fingerprint="a", progress=abs)
    with pytest.raises(RecommendError, match="begun with another model"):
        recommend(USERS, stand_in, tmp_path / "s.jsonl", chunk=4, fingerprint="b", progress=abs)
    for other, what in (
        (USERS[1:], "'u0' at place 1, where the input has 'u1'"),
        (USERS[:3], "'u3' at place 4.*'no m"),
    ):
        with pytest.raises(RecommendError, match=what):
            recommend(other, stand_in, tmp_path / "s.jsonl", chunk=4, fingerprint="a", progress=abs)
    assert (tmp_path / "r.jsonl").read_text() == "precious" and len(read(tmp_path / "s.jsonl.partial")) == 8


GOOD = [{"user": 7, "items": [0, 3]}, {"user": "x", "items": []}]
BAD = [
    "{",
    "[1]",
    '{"user": 1}',
    '{"user": 1, "items": 3}',
    '{"user": 1, "items": [4]}',
    '{"user": 1, "items": [true]}',
    '{"user": [1], "items": [1]}',
    '{"user": NaN, "items": [1]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[:30])
def test_a_line_that_is_no_user_is_named_or_left_out(tmp_path, bad):
    path = tmp_path / "u.jsonl"
    path.write_text("\n".join([json.dumps(GOOD[0]), "", bad, json.dumps(GOOD[1])]) + "\n")
    with pytest.raises(RecommendError, match=r"u.jsonl, line 3: .*--on_bad=skip"):
        list(read_users(path, 4, "error", print))
    said = []
    users = list(read_users(path, 4, "skip", said.append))
    assert [user.user for user in users] == [7, "x"] and [user.items.tolist() for user in users] == [[0, 3], []]
    assert len(said) == 1 and "line 3" in said[0] and bad[:100] in said[0]
    assert count_users(path) == 3


def test_a_user_is_never_changed_by_how_it_is_written(tmp_path):
    path = tmp_path / "u.jsonl"
    path.write_bytes('{"user": "Zoë", "items": []}\n'.encode() + '{"user": "Zoë", "items": []}\n'.encode("latin-1"))
    said = []
    assert [user.user for user in read_users(path, 4, "skip", said.append)] == ["Zoë"]
    assert len(said) == 1 and "line 2: 'utf-8' codec can't decode byte 0xeb" in said[0] and "Zo\ufffd" in said[0]


@pytest.mark.parametrize("user", [b"x", datetime.datetime(2026, 1, 1), decimal.Decimal("1.5")])
def test_a_parquet_user_that_json_cannot_hold_is_named(tmp_path, user):
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"items": [[0]], "user": [user]}), path)
    with pytest.raises(RecommendError, match=r"u.parquet, line 1: user .* is not a string, finite number, bool or nu"):
        list(read_users(path, 4, "error", print))


@pytest.mark.parametrize("broken", ["atspeed_jax.files.append_text", "atspeed_jax.evaluation.recommend._finish"])
def test_a_full_disk_ends_in_one_clear_error_and_the_next_run_goes_on(tmp_path, monkeypatch, broken):
    how = {"chunk": 4, "fingerprint": "a", "progress": abs}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(broken, full)
        with pytest.raises(RecommendError, match="cannot be written .*No space left.* run again, it goes on"):
            recommend(USERS, stand_in, tmp_path / "r.jsonl", **how)
    assert recommend(USERS, stand_in, tmp_path / "r.jsonl", **how) == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]


def test_processes_wait_for_the_finished_file(tmp_path, monkeypatch):
    output, finished = tmp_path / "r.parquet", []
    monkeypatch.setattr("atspeed_jax.evaluation.recommend.barrier", lambda _: finished.append(output.exists()))
    recommend(USERS, stand_in, output, chunk=4, fingerprint="a", progress=abs)
    assert finished == [False, True]


def test_parquet_is_read_like_lines(tmp_path):
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"items": [row["items"] for row in GOOD], "user": [7, 8]}), path)
    users = list(read_users(path, 4, "error", print))
    assert [(user.user, user.items.tolist()) for user in users] == [(7, [0, 3]), (8, [])] and count_users(path) == 2
    (tmp_path / "v.parquet").write_text("no parquet")
    pq.write_table(pa.table({"who": [1]}), tmp_path / "w.parquet")
    for name in ("v", "w"):
        with pytest.raises(RecommendError, match=f"{name}.parquet cannot be read as parquet with columns user and it"):
            list(read_users(tmp_path / f"{name}.parquet", 4, "error", print))
    with pytest.raises(RecommendError, match="there is no input file"):
        list(read_users(tmp_path / "none.jsonl", 4, "error", print))


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("drafter", ["none", "draft"])
def test_lists_are_those_of_the_decoder(small_run, drafter, exclude_seen):
    run, dataset = small_run.run, small_run.run.dataset
    config, catalog = run.config, run.dataset.catalog
    beams = 6
    setting = plain(beams, "vocab") if drafter == "none" else speculative("draft", beams, config.decode)
    shapes = {"history": config.data.history, "buckets": config.evaluate.buckets, "batch_size": 8}
    decoders = run.decoders(run.draft_params)
    histories = [dataset.history(user, "test") for user in range(13)] + [np.zeros(0, np.int64)]
    users = [User(f"u{row}", items) for row, items in enumerate(histories)]
    items, scores = lists_of(decoders, setting, dataset, **shapes, exclude_seen=exclude_seen)(users)
    assert items.shape == scores.shape == (14, beams)
    whole = plain(len(catalog.ids), "vocab")  # every id there is, with its score
    every = decode_users(decoders.build(whole), prompt_batches(catalog, histories, **shapes), len(histories))
    for row, history in enumerate(histories):
        score = dict(zip(every.ids[row].tolist(), every.score[row].tolist(), strict=True))
        for item, value in zip(items[row], scores[row], strict=True):
            assert value == pytest.approx(score[catalog.id_of_item[item]], abs=1e-4)
        assert len(set(items[row].tolist())) == beams and (np.diff(scores[row]) <= 1e-5).all()
        assert not exclude_seen or not set(items[row]) & set(history.tolist())


def test_scores_that_are_no_numbers_name_the_user(small_run):
    """By the name in the input, not by the place in a batch."""
    run = small_run.run
    broken = jax.tree.map(lambda x: x * np.nan, run.target_params)
    decoders = dataclasses.replace(run.decoders(None), target_params=broken)
    shapes = {"history": run.config.data.history, "buckets": run.config.evaluate.buckets, "batch_size": 2}
    lists = lists_of(decoders, plain(4, "vocab"), run.dataset, **shapes, exclude_seen=False)
    with pytest.raises(DecodeError, match="user anna: scores of level 1 are not finite"):
        lists([User("anna", np.arange(3))])
