import pytest

import small
from atspeed_jax.runs import borrow
from atspeed_jax.runs.pipeline import Run


def test_nothing_is_borrowed_from_other_settings(small_run, small_config, tmp_path):
    other = small.changed(small_config, "train_target.epochs", 1.0)
    run = Run(other, tmp_path, None)
    for stage in ("data", "target"):
        run.borrow(stage, [small_run.workdir])
    assert (tmp_path / "data").is_symlink()
    assert not (tmp_path / "target").exists()


def test_nothing_is_borrowed_before_it_is_complete(small_run, small_config, tmp_path):
    """Jobs at work at the same time each train into their own directory."""
    other, run = tmp_path / "other", Run(small_config, tmp_path / "own", None)
    run.workdir.mkdir()
    run.borrow("data", [small_run.workdir])
    (other / "target").mkdir(parents=True)
    metadata = other / "target" / "metadata.json"
    for file in (small_run.workdir / "target").iterdir():
        if file.name != metadata.name:
            (other / "target" / file.name).symlink_to(file)
    run.borrow("target", [tmp_path / "not_begun", other])
    assert not (run.workdir / "target").exists()
    metadata.write_bytes((small_run.workdir / "target" / metadata.name).read_bytes())
    run.borrow("target", [tmp_path / "not_begun", other])
    assert (run.workdir / "target").resolve() == other / "target"


def test_a_link_that_leads_nowhere_is_left_to_its_stage(small_run, small_config, tmp_path):
    (tmp_path / "data").symlink_to(tmp_path / "gone")
    Run(small_config, tmp_path, None).borrow("data", [small_run.workdir])
    assert (tmp_path / "data").readlink() == tmp_path / "gone"


@pytest.mark.parametrize("process", [0, 1])
def test_of_several_processes_all_ask_what_to_borrow_and_one_links(small_run, tmp_path, monkeypatch, process):
    """The fingerprint of a teacher is that of the target's parameters, which all processes read together."""
    asked = []
    monkeypatch.setattr(borrow, "is_writer", lambda: process == 0)
    monkeypatch.setattr(borrow, "barrier", asked.append)

    def fingerprint(stage):
        asked.append(stage)
        return small_run.run.stage_fingerprint(stage)

    borrow.borrow(tmp_path, "teacher", [small_run.workdir], fingerprint)
    assert asked == ["teacher", "borrow teacher"]
    assert (tmp_path / "teacher").is_symlink() == (process == 0)
