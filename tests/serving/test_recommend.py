"""A batch job's file: the lists of evaluation, in order, once each, whatever interrupts it."""

import dataclasses
import gzip
import io
import json

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from tqdm import tqdm

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.list_file import RecommendError, claimed_output
from atspeed_jax.serving.recommend import lists_of, recommend
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.user_file import User, UserFileError


def stand_in(users):
    """Two places per user, the second empty for an even sum."""
    sums = np.array([int(np.sum(user.items)) for user in users])
    return np.stack([sums, np.where(sums % 2, sums + 1, -1)], 1), np.stack([-sums / 4, -sums / 2], 1)


def line_of(user: User) -> dict:
    (items, scores), found = (row[0] for row in stand_in([user])), 1 + int(np.sum(user.items)) % 2
    return {"user": user.user, "items": items[:found].tolist(), "scores": scores[:found].tolist()}


class Told(tqdm):
    """A bar that nobody sees, and what it is told."""

    def __init__(self):
        super().__init__(file=io.StringIO())
        self.told = []

    def update(self, n=1):
        self.told.append(n)
        return super().update(n)


QUIET = tqdm(disable=True)
USERS = [User(f"u{n}", np.arange(n % 5)) for n in range(11)]


def write(users, lists, path, *, chunk=4, fingerprint="a", progress=QUIET, titles=None, names=None) -> int:
    with claimed_output(path) as output:
        how = {"chunk": chunk, "fingerprint": fingerprint, "progress": progress, "titles": titles, "names": names}
        return recommend(users, lists, output, **how)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_line_per_user_in_order(tmp_path):
    with Told() as bar:
        assert write(USERS, stand_in, tmp_path / "r.jsonl", progress=bar) == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]
    assert (bar.initial, bar.told) == (0, [0, 4, 4, 3])
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_titles_stand_beside_their_items(tmp_path, name):
    lines = [line_of(user) for user in USERS]
    titles = {lines[0]["items"][0]: "Soap, \u00e0 la carte"}
    expected = [line | {"titles": [titles.get(item) for item in line["items"]]} for line in lines]
    assert write(USERS, stand_in, tmp_path / name, titles=titles) == 11
    found = read(tmp_path / name) if name == "r.jsonl" else pq.read_table(tmp_path / name).to_pylist()
    assert found == expected


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.parquet"])
@pytest.mark.parametrize("kind", [str, int])
def test_lists_are_of_names(tmp_path, name, kind):
    names = ItemNames(20, tuple(kind(900 - item) for item in range(20)))
    expected = [line_of(user) for user in USERS]
    expected = [line | {"items": [kind(900 - item) for item in line["items"]]} for line in expected]
    assert write(USERS, stand_in, tmp_path / name, names=names) == 11
    if name == "r.parquet":
        assert pq.read_table(tmp_path / name).to_pylist() == expected
    else:
        content = (tmp_path / name).read_bytes()
        lines = gzip.decompress(content) if name.endswith("gz") else content
        assert [json.loads(line) for line in lines.splitlines()] == expected


def test_titles_can_be_read_by_people(tmp_path):
    """And half of a UTF-16 pair, which only JSON holds, is written as it came."""
    first = line_of(USERS[0])["items"][0]
    for number, (title, written) in enumerate([("Löffel", '"Löffel"'), ("\ud83d?", '"\\ud83d?"')]):
        file = tmp_path / f"{number}.jsonl"
        write(USERS, stand_in, file, titles={first: title})
        line = file.read_text(encoding="utf-8").splitlines()[0]
        assert written in line
        assert json.loads(line)["titles"][0] == title


def test_an_output_is_not_gone_on_with_under_other_titles(tmp_path):
    def interrupted(users):
        if users[0].user == "u4":
            raise KeyboardInterrupt
        return stand_in(users)

    with pytest.raises(KeyboardInterrupt):
        write(USERS, interrupted, tmp_path / "r.jsonl", titles={0: "Soap"})
    with pytest.raises(RecommendError, match="begun with another model"):
        write(USERS, stand_in, tmp_path / "r.jsonl", titles={0: "Comb"})
    with pytest.raises(RecommendError, match="begun with another model"):
        write(USERS, stand_in, tmp_path / "r.jsonl", titles={0: "Soap"}, names=ItemNames(20, tuple(range(1, 21))))
    assert write(USERS, stand_in, tmp_path / "r.jsonl", titles={0: "Soap"}) == 11


@pytest.mark.parametrize("chunk", [4, 11, 50])
def test_parquet_holds_what_the_lines_hold(tmp_path, chunk):
    how = {"chunk": chunk}
    assert write(USERS, stand_in, tmp_path / "r.parquet", **how) == 11
    assert pq.read_table(tmp_path / "r.parquet").to_pylist() == [line_of(user) for user in USERS]
    assert write([], stand_in, tmp_path / "none.parquet", **how) == 0
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    mixed = [User(1, np.arange(2)), User("x", np.arange(2))]
    with pytest.raises(
        RecommendError, match=r"m\.parquet: these users cannot share a par.* take the lines from .*m\.parquet\.part"
    ):
        write(mixed, stand_in, tmp_path / "m.parquet", **how)
    names = {path.name for path in tmp_path.iterdir()} - {".m.parquet.partial"}
    assert names == {"r.parquet", "none.parquet", "m.parquet.partial", "m.parquet.partial.json"}
    assert write(mixed[:1], stand_in, tmp_path / "r.jsonl") == 1


@pytest.mark.parametrize("torn", ["", '{"user": "u4", "it', '{"user": "u4"}\n{"user": "u5", '])
def test_an_interrupted_job_goes_on_without_gaps_or_repeats(tmp_path, torn):
    calls = []

    def dies(users):
        calls.append(len(users))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stand_in(users)

    with pytest.raises(KeyboardInterrupt):
        write(USERS, dies, tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()
    with (tmp_path / "r.jsonl.partial").open("a") as file:
        file.write(torn)  # what a kill in the middle of a write leaves
    with Told() as bar:
        assert write(USERS, dies, tmp_path / "r.jsonl", progress=bar) == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]
    assert calls == [4, 4, 4, 3]  # nobody of the first chunk again
    assert (bar.initial, bar.told) == (4, [4, 4, 3])  # whose users say nothing of the time that is left


def test_nothing_is_mixed_or_overwritten(tmp_path):
    (tmp_path / "r.jsonl").write_text("precious")
    with pytest.raises(RecommendError, match=r"r\.jsonl exists; choose another"):
        write(USERS, stand_in, tmp_path / "r.jsonl")

    def dies(users):
        if len(users) < 4:
            raise KeyboardInterrupt
        return stand_in(users)

    with pytest.raises(KeyboardInterrupt):
        write(USERS, dies, tmp_path / "s.jsonl")
    with pytest.raises(RecommendError, match="begun with another model"):
        write(USERS, stand_in, tmp_path / "s.jsonl", fingerprint="b")
    grown = [dataclasses.replace(USERS[0], items=np.arange(9)), *USERS[1:]]  # the same users, one with a newer history
    for other in (USERS[1:], USERS[:3], grown):
        with pytest.raises(
            RecommendError, match="lists of 8 users that are not the first 8 of --input, with their histories: give"
        ):
            write(other, stand_in, tmp_path / "s.jsonl")
    assert (tmp_path / "r.jsonl").read_text() == "precious"
    assert len(read(tmp_path / "s.jsonl.partial")) == 8
    lines = (tmp_path / "s.jsonl.partial").read_text().splitlines(keepends=True)
    (tmp_path / "s.jsonl.partial").write_text("".join(lines[:5]))
    with pytest.raises(RecommendError, match=r"s\.jsonl\.partial has 5 lines, where s\.jsonl\.partial\.json counts 8"):
        write(USERS, stand_in, tmp_path / "s.jsonl")


@pytest.mark.parametrize("broken", ["atspeed_jax.utils.files.append_text", "atspeed_jax.serving.recommend.finish"])
def test_a_full_disk_ends_in_one_clear_error_and_the_next_run_goes_on(tmp_path, monkeypatch, broken):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(broken, full)
        with pytest.raises(RecommendError, match=r"cannot be written .*No space left.* run again, it goes on"):
            write(USERS, stand_in, tmp_path / "r.jsonl")
    assert write(USERS, stand_in, tmp_path / "r.jsonl") == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]


def test_a_stream_that_is_refused_keeps_what_is_done_and_goes_on_when_it_is_given_again(tmp_path):
    """A stream cannot be checked beforehand, nor asked how much of it was read."""

    def refused_at(place):
        yield from USERS[:place]
        raise UserFileError("bad line")

    for place, left in ((3, set()), (9, {"r.jsonl.partial", "r.jsonl.partial.json"})):  # of the first chunk, the third
        with pytest.raises(UserFileError, match="bad line"):
            write(refused_at(place), stand_in, tmp_path / "r.jsonl")
        assert {path.name for path in tmp_path.iterdir()} == left
    with pytest.raises(RecommendError, match="lists of 8 users that are not the first 8 of --input"):
        write(iter(USERS[1:]), stand_in, tmp_path / "r.jsonl")
    asked = []
    assert write(iter(USERS), lambda users: asked.extend(users) or stand_in(users), tmp_path / "r.jsonl") == 11
    assert read(tmp_path / "r.jsonl") == [line_of(user) for user in USERS]
    assert len(asked) == 3


def test_processes_wait_for_the_finished_file(tmp_path, monkeypatch):
    output, finished = tmp_path / "r.parquet", []
    monkeypatch.setattr("atspeed_jax.serving.recommend.barrier", lambda _: finished.append(output.exists()))
    write(USERS, stand_in, output)
    assert finished == [False, True]


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("drafter", ["none", "draft"])
def test_lists_are_those_of_the_decoder(small_run, capsys, drafter, exclude_seen):
    run, dataset = small_run.run, small_run.run.dataset
    config, catalog = run.config, run.dataset.catalog
    beams = 6
    setting = (
        Setting.beam_search(beams, "vocab") if drafter == "none" else Setting.strict("draft", beams, config.decode)
    )
    shape = BatchShape(config.data.history, config.evaluate.buckets, 8)
    decoders = run.decoders(run.draft_params)
    histories = [dataset.history(user, "test") for user in range(13)] + [np.zeros(0, np.int64)]
    users = [User(f"u{row}", items) for row, items in enumerate(histories)]
    lists = lists_of(decoders, setting, dataset, shape, exclude_seen=exclude_seen)
    items, scores = lists(users)
    assert not capsys.readouterr().out
    assert items.shape == scores.shape == (14, beams)
    whole = Setting.beam_search(len(catalog.ids), "vocab")  # every id there is, with its score
    every = decode_users(decoders.build(whole), prompt_batches(catalog, histories, shape), len(histories))
    for row, history in enumerate(histories):
        score = dict(zip(every.ids[row].tolist(), every.score[row].tolist(), strict=True))
        for item, value in zip(items[row], scores[row], strict=True):
            assert value == pytest.approx(score[catalog.id_of_item[item]], abs=1e-4)
        assert len(set(items[row].tolist())) == beams
        assert (np.diff(scores[row]) <= 1e-5).all()
        assert not exclude_seen or not set(items[row]) & set(history.tolist())


def test_numbers_that_count_from_one_are_noticed(small_run, capsys):
    run = small_run.run
    shape = BatchShape(run.config.data.history, run.config.evaluate.buckets, 8)
    lists = lists_of(run.decoders(None), Setting.beam_search(6, "vocab"), run.dataset, shape, exclude_seen=False)
    last = run.dataset.catalog.items - 1
    users = [User(user, np.minimum(run.dataset.history(user, "test") + 1, last)) for user in range(13)]
    for said in ("note: these are histories of synthetic with each number one too high: item numbers count from 0", ""):
        lists(users)  # once, not for every part
        out = capsys.readouterr().out
        assert out.startswith(said)
        assert bool(out) == bool(said)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_a_k_above_the_number_of_items_is_said_once(toy, capsys, exclude_seen):
    dataset = Dataset("toy", toy.catalog, *[(np.array([0, 1], np.int32),)] * 3)
    for beams, said in ((8, "note: K=8, but the catalog has 7 items: lists are shorter\n"), (7, "")):
        setting = Setting.beam_search(beams, "vocab")
        lists = lists_of(toy.decoders, setting, dataset, BatchShape(2, (2,), 1), exclude_seen=exclude_seen)
        for _ in range(2):
            items, _ = lists([User("u", np.array([3]))])
            assert (items >= 0).sum() == (6 if exclude_seen else 7)
        assert capsys.readouterr().out == said


def test_scores_that_are_no_numbers_name_the_user(small_run):
    """By the name in the input, not by the place in a batch."""
    run = small_run.run
    broken = jax.tree.map(lambda x: x * np.nan, run.target_params)
    decoders = dataclasses.replace(run.decoders(None), target_params=broken)
    shape = BatchShape(run.config.data.history, run.config.evaluate.buckets, 2)
    lists = lists_of(decoders, Setting.beam_search(4, "vocab"), run.dataset, shape, exclude_seen=False)
    with pytest.raises(DecodeError, match="user anna: scores of level 1 are not finite"):
        lists([User("anna", np.arange(3))])
