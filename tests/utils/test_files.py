import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from atspeed_jax.utils import files


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2.5, None]}

    def no_space(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        files.write_json(path, {"a": "another"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2.5, None]}


def test_non_finite_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_reader_keeps_the_file_it_opened(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with path.open(encoding="utf-8") as reader:
        files.write_text(path, "new")
        assert reader.read() == "old"  # the new file took its name, not its bytes
    assert path.read_text(encoding="utf-8") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_lines_are_added_one_after_another(tmp_path):
    files.append_text(tmp_path / "a.jsonl", "1\n")
    files.append_text(tmp_path / "a.jsonl", "é\n")
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == "1\né\n"


def test_jsonable_has_none_for_what_json_cannot_hold(tmp_path):
    value = files.jsonable({"a": [float("nan"), 1.5, (float("inf"),)], "b": "x"})
    assert value == {"a": [None, 1.5, [None]], "b": "x"}
    files.write_json(tmp_path / "a.json", value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/a.json", "--json=.*no/a.json: there is no directory .*no; make it first"),
        ("", "--json=.*: this is a directory; give the name of a file in it"),
        ("file/a.json", "--json=.*file/a.json: there is no directory .*file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=message):
        files.check_writable("--json", tmp_path / name)
    files.check_writable("--json", tmp_path / "a.json")
    files.check_writable("--json", tmp_path / "file")  # there already, to be replaced
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_read_only_is_refused_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"--json=.*: the directory .* is not writable"):
        files.check_writable("--json", tmp_path / "a.json")


def test_what_was_measured_is_remembered(tmp_path):
    path, said = tmp_path / "deep" / "row_w0.5.json", []
    assert files.remembered(path, lambda: {"value": 1}, said.append, {"value": int}) == {"value": 1}
    assert files.remembered(path, lambda: pytest.fail("measured twice"), said.append, {"value": int}) == {"value": 1}
    assert said == ["measuring row_w0.5"]


TAKE = "import sys\nfrom pathlib import Path\nfrom atspeed_jax.utils import files\n"
TAKE += "with files.locked(Path(sys.argv[1])) as own: print(own, end='')"


def test_a_lock_is_one_process_s_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.lock"
    command = [sys.executable, "-c", TAKE, str(path)]
    with files.locked(path) as own:
        assert own
        assert path.exists()
        assert subprocess.run(command, capture_output=True, text=True).stdout == "False"
        with files.locked(path) as again:  # nor twice in one process
            assert not again
        assert path.exists()
    assert subprocess.run(command, capture_output=True, text=True).stdout == "True"
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_leaves_is_no_lock(tmp_path):
    (tmp_path / "a.lock").write_text("")
    with files.locked(tmp_path / "a.lock") as own:
        assert own
    assert not list(tmp_path.iterdir())


def test_a_lock_of_a_file_that_is_gone_is_none(tmp_path, monkeypatch):
    """Who opened the file before its owner removed it would hold a file that nobody else can see."""
    path, flock, tries = tmp_path / "a.lock", fcntl.flock, []

    def removed_meanwhile(file, how):
        tries.append(how)
        if len(tries) == 1:
            path.unlink()
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with files.locked(path) as own:
        assert own
        assert len(tries) == 2
        assert path.exists()
        with files.locked(path) as again:
            assert not again


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_word(tmp_path, monkeypatch, capsys, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(tmp_path / "a.lock") as own:
        assert own
    (said,) = capsys.readouterr().err.splitlines()
    assert "a.lock cannot be locked" in said
    assert os.strerror(number) in said


def test_what_was_measured_and_is_damaged_is_named(tmp_path):
    (tmp_path / "row.json").write_text('{"calls": ')
    with pytest.raises(ValueError, match=f"{tmp_path}/row.json is damaged .*; delete it, and it is measured again"):
        files.remembered(tmp_path / "row.json", pytest.fail, pytest.fail, {"calls": int})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"calls": ', "Expecting value"),
        (b"\xff", "can't decode byte 0xff"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 5000, "limit .4300 digits"),
        (b"[]", "it holds a list, expected a JSON object"),
        (b"3", "it holds a int, expected a JSON object"),
        (b"{}", "it lacks calls"),
        (b'{"calls": "2"}', "calls is a str, expected a int"),
    ],
    ids=["cut", "not UTF-8", "deep", "long number", "list", "number", "empty", "text"],
)
def test_a_json_file_of_other_content_is_named_with_the_remedy(tmp_path, content, what):
    path, fields = tmp_path / "row.json", {"calls": int}
    path.write_bytes(content)
    message = f"{path} is damaged .*{what}.*; delete it"
    with pytest.raises(ValueError, match=message):
        files.read_json(path, "delete it", fields)
    with pytest.raises(OverflowError, match=message):
        files.read_json(path, "delete it", fields, error=OverflowError)
    with pytest.raises(ValueError, match=f"{message}, and it is measured again"):
        files.remembered(path, pytest.fail, pytest.fail, fields)


def test_a_full_disk_is_told_with_the_file_and_leaves_no_partial(tmp_path):
    (tmp_path / ".row.json.partial").symlink_to("/dev/full")
    (tmp_path / "lines").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/.row.json.partial'"):
        files.write_bytes(tmp_path / "row.json", b"{}")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/lines'"):
        files.append_text(tmp_path / "lines", "one\n")
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


# As the libraries told it on a file system of one MiB.
TENSORSTORE = ValueError(
    'RESOURCE_EXHAUSTED: Failed writing: "/disk/3/params.orbax-checkpoint-tmp/d/0c": Failed to write 234943 bytes to '
    "file 38: No space left on device [os_error_code='28']"
)
ARRAY_RECORD = RuntimeError(
    'Failed to finalize writing of split "users": write() failed: No space left on device; writing /disk/users.00'
)
PYARROW = OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")
SAFETENSORS = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
QUOTA = OSError(122, "Disk quota exceeded", "/home/x")


@pytest.mark.parametrize("error", [TENSORSTORE, ARRAY_RECORD, PYARROW, SAFETENSORS, QUOTA])
def test_a_full_disk_is_recognised_whoever_tells_it(error):
    assert files.full_disk(error) == str(error)
    outer = ValueError("cannot be written")
    outer.__cause__ = error
    assert files.full_disk(outer) == str(error)


@pytest.mark.parametrize("error", [ValueError("RESOURCE_EXHAUSTED: Out of memory"), OSError(13, "Permission denied")])
def test_other_errors_are_no_full_disk(error):
    assert files.full_disk(error) is None
