import os
import subprocess

import pytest

from atspeed_jax.utils.building import _sibling, built, check_free


def test_a_directory_gets_its_name_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "shop"
    with built(target) as building:
        (building / "file").write_text("x")
        assert building.parent == target.parent
        assert not target.exists()
    assert [file.name for file in target.parent.iterdir()] == ["shop"]
    assert (target / "file").read_text() == "x"


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="disk full"), built(tmp_path / "shop") as building:  # noqa: PT012
        (building / "file").write_text("x")
        raise RuntimeError("disk full")
    assert not list(tmp_path.iterdir())


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in ("below", "further/below"):
        with pytest.raises(NotADirectoryError), built(tmp_path / "file" / place):
            pass


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    check_free(tmp_path / "none")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="exists and is kept: give another directory, or remove it"):
            check_free(path)
    with pytest.raises(FileExistsError), built(tmp_path / "empty"):
        (tmp_path / "empty" / "other").write_text("of another build that ended first")
    assert [file.name for file in (tmp_path / "empty").iterdir()] == ["other"]


def test_a_build_under_way_elsewhere_is_left_alone(tmp_path):
    mine = _sibling(tmp_path / "shop")
    other = mine.with_name(f"{mine.name.rpartition('-')[0]}-{os.getppid()}")
    mine.rename(other)
    with built(tmp_path / "shop"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "shop", other])


def test_what_a_killed_build_left_is_removed(tmp_path):
    child = subprocess.Popen(["true"])
    child.wait()
    mine = _sibling(tmp_path / "shop")
    mine.rename(mine.with_name(f"{mine.name.rpartition('-')[0]}-{child.pid}"))
    with built(tmp_path / "shop"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["shop"]
