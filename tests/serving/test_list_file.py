"""A file of lists: its name, whose it is, and what is left of it."""

import gzip
import json
import os

import pytest
from tqdm import tqdm

from atspeed_jax.serving import list_file
from atspeed_jax.serving.list_file import RecommendError, claimed_output, finish, resume
from atspeed_jax.serving.recommend import recommend


@pytest.mark.parametrize("name", ["r.csv", "r", "r.json", "-", "r.jsonl.bz2", "r.gz", "jsonl"])
def test_a_name_that_does_not_say_what_is_written_is_refused(tmp_path, name):
    with (
        pytest.raises(RecommendError, match=f"--output=.*{name}: the name must end in .jsonl or .ndjson .*parquet"),
        claimed_output(tmp_path / name),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["r.jsonl", "R.NDJSON", "r.jsonl.gz", "r.Parquet"])
def test_two_runs_cannot_write_one_output(tmp_path, name):
    with claimed_output(tmp_path / name) as output:
        resume(output, "a")
        output.partial.write_text("1\n")
        with (
            pytest.raises(RecommendError, match=f"{name} is being written by another process; wait"),
            claimed_output(tmp_path / name),
        ):
            pass
        assert output.partial.read_text() == "1\n"
        assert output.claim.exists()
        with claimed_output(tmp_path / f"other-{name}"):
            pass
    with claimed_output(tmp_path / name) as output:  # free again
        assert output.one_type == (name == "r.Parquet")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.partial", f"{name}.partial.json"}


def test_the_first_of_several_processes_holds_the_lock_for_all(tmp_path, monkeypatch):
    """`agreed` gives every process what the first finds: here, of another one, that the lock is somebody else's."""
    found = iter([True, False])
    monkeypatch.setattr(list_file, "agreed", lambda look: next(found))
    with (
        pytest.raises(RecommendError, match=r"r\.jsonl is being written by another process"),
        claimed_output(tmp_path / "r.jsonl"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way(tmp_path):
    (tmp_path / "r.jsonl").write_text("precious")
    for name, message in (("r.jsonl", "r.jsonl exists; choose another"), ("no/r.jsonl", "no directory .*no; make it")):
        with pytest.raises(RecommendError, match=message), claimed_output(tmp_path / name):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]
    assert (tmp_path / "r.jsonl").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(RecommendError, match=r"r\.jsonl cannot be written .*; choose another --output"),
        claimed_output(tmp_path / "r.jsonl"),
    ):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_where_no_list_was_written(tmp_path, error):
    def begin_and_fail():
        with claimed_output(tmp_path / "r.jsonl") as output:
            resume(output, "a")
            raise error

    with pytest.raises(error):
        begin_and_fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("{", "r.jsonl.partial.json cannot be read .*; delete it and r.jsonl.partial, or"),
        ("[]", "r.jsonl.partial was begun with another model"),
        (None, "r.jsonl.partial was begun with another model"),
    ],
)
def test_lines_of_which_nothing_is_known_are_not_gone_on_with(tmp_path, claim, message):
    (tmp_path / "r.jsonl.partial").write_text("1\n")
    if claim:
        (tmp_path / "r.jsonl.partial.json").write_text(claim)
    with claimed_output(tmp_path / "r.jsonl") as output, pytest.raises(RecommendError, match=message):
        resume(output, "a")
    assert (tmp_path / "r.jsonl.partial").read_text() == "1\n"


def test_compressed_lines(tmp_path):
    with claimed_output(tmp_path / "r.jsonl.gz") as output:
        resume(output, "a")
        output.partial.write_text('{"user": 1}\n{"user": 2}\n')
        finish(output, 1)
    lines = gzip.decompress((tmp_path / "r.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line)["user"] for line in lines] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl.gz"]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.parquet"])
def test_a_file_of_nobody_is_a_file(tmp_path, name):
    with claimed_output(tmp_path / name) as output:
        assert recommend([], None, output, chunk=4, fingerprint="a", progress=tqdm(disable=True)) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
