import os
import subprocess
import sys

import pytest

from atspeed_jax.training.directory import (
    TrainingDirectoryError,
    check_directory,
    claimed_directory,
    read_record,
)


def test_a_claimed_directory_says_whose_it_is_and_can_be_claimed_again(tmp_path):
    workdir = tmp_path / "a" / "b"
    for _ in range(2):
        with claimed_directory(workdir, "toy", "f1"):
            assert read_record(workdir / "run.json") == {"name": "toy", "fingerprint": "f1"}


def test_another_fingerprint_is_refused_and_nothing_changes(tmp_path):
    with claimed_directory(tmp_path / "w", "toy", "f1"):
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "w").iterdir()}
    with (
        pytest.raises(
            TrainingDirectoryError,
            match=r"holds a training of fingerprint 'f1', expected 'f2' .*: use another directory, or move .*/w away",
        ),
        claimed_directory(tmp_path / "w", "toy", "f2"),
    ):
        pass
    assert {path: path.read_bytes() for path in (tmp_path / "w").iterdir()} == before


def test_a_foreign_directory_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(TrainingDirectoryError, match=r"not empty and holds no run\.json.*thesis\.tex"),
        claimed_directory(tmp_path, "toy", "f1"),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_pruned_model_is_used_by_its_fingerprint_and_never_to_be_deleted(tmp_path):
    """Of a finished training, params/ and metadata.json are enough."""
    (tmp_path / "params").mkdir()
    (tmp_path / "metadata.json").write_text('{"fingerprint": "f1"}')
    check_directory(tmp_path, "f1")
    with pytest.raises(TrainingDirectoryError) as refused:
        check_directory(tmp_path, "f2")
    assert f"{tmp_path} holds a finished model of fingerprint 'f1', expected 'f2'" in str(refused.value)
    assert f"use another directory, or move {tmp_path} away to train again" in str(refused.value)
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(TrainingDirectoryError) as refused:
        check_directory(tmp_path, "f1")
    assert "without metadata.json, which says what they are: restore metadata.json, or move" in str(refused.value)
    assert "delete" not in str(refused.value)


def test_what_a_kill_leaves_before_the_first_file_is_not_foreign(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".run.json.partial").write_text("{")
    with claimed_directory(tmp_path, "toy", "f1"):
        assert read_record(tmp_path / "run.json")["fingerprint"] == "f1"


def test_checking_makes_nothing(tmp_path):
    check_directory(tmp_path / "w", "f1")
    assert not (tmp_path / "w").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(TrainingDirectoryError, match=r"file/w cannot be written.*use another directory"),
        claimed_directory(tmp_path / "file" / "w", "toy", "f1"),
    ):
        pass
    with pytest.raises(TrainingDirectoryError, match="file is not a directory"):
        check_directory(tmp_path / "file", "f1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(TrainingDirectoryError, match=r"cannot be written.*use another directory"),
        claimed_directory(tmp_path, "toy", "f1"),
    ):
        pass


def test_two_processes_cannot_share_a_directory(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom atspeed_jax.training.directory import claimed_directory\n"
        "with claimed_directory(Path(sys.argv[1]), 'toy', 'f1'): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w")]
    with claimed_directory(tmp_path / "w", "toy", "f1"):
        other = subprocess.run(command, capture_output=True, text=True)
        assert other.returncode == 1
        assert "in use by another process" in other.stderr
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_json_that_is_no_object_is_named(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingDirectoryError, match=f"a.json is damaged .*; restore a.json, or move {tmp_path} away"):
        read_record(tmp_path / "a.json")
