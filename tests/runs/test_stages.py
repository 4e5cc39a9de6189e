"""When a stage begins, what it prints, and what it refuses before it begins."""

import shutil

import pytest

import small
from atspeed_jax.alignment.teacher_files import TeacherError
from atspeed_jax.runs import stages
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.stages import StageOptions
from atspeed_jax.training.directory import TrainingDirectoryError, claimed_directory


def test_settings_that_do_not_fit_the_data_are_refused_before_they_are_stored(small_config, tmp_path):
    with pytest.raises(ValueError, match=r"config\.decode\.widths: width 9 of level 2"):
        Run(small.changed(small_config, "decode.widths", ("all", 9)), tmp_path / "run", None).data()
    assert not (tmp_path / "run").exists()


def test_stored_data_are_told_again_where_that_is_asked_for(small_config, data_only, capsys):
    Run(small_config, data_only, None).data()
    assert not capsys.readouterr().out
    Run(small_config, data_only, None).data(always_print=True)
    assert "data of synthetic" in capsys.readouterr().out


def begun(run):
    """The stages that a run says it begins, each with whether the workdir is there by then."""
    seen = []
    run.options = StageOptions(on_begin=lambda stage: seen.append((stage, run.workdir.exists())))
    return seen


def test_a_stage_begins_after_all_checks(small_config, tmp_path):
    """A run is recorded then: by a start that is not refused, and before its first stage is stored."""
    refused = Run(small.changed(small_config, "decode.widths", ("all", 9)), tmp_path / "run", None)
    seen = begun(refused)
    with pytest.raises(ValueError, match="width 9 of level 2"):
        refused.data()
    assert seen == []
    run = Run(small_config, tmp_path / "run", None)
    seen = begun(run)
    run.data()
    run.data()
    assert seen == [("data", False)]


def test_a_stage_that_another_process_makes_does_not_begin(small_config, data_only, tmp_path):
    workdir = shutil.copytree(data_only, tmp_path / "run")
    run = Run(small_config, workdir, None)
    seen = begun(run)
    with (
        claimed_directory(workdir / "target", "target", run.stage_fingerprint("target")),
        pytest.raises(TrainingDirectoryError, match="is in use by another process"),
    ):
        run.target()
    assert seen == []


def test_a_draft_without_its_teacher_begins_nothing(small_config, small_run, tmp_path):
    """Its start would be trained in vain."""
    workdir = tmp_path / "run"
    for stage in ("data", "target"):
        shutil.copytree(small_run.workdir / stage, workdir / stage)
    run = Run(small_config, workdir, None)
    seen = begun(run)
    run.target()
    with pytest.raises(TeacherError, match="holds no complete teacher data"):
        run.draft()
    assert seen == []
    assert not (workdir / "draft_sft").exists()


def test_the_data_stage_waits_for_all_though_the_data_is_there(data_only, small_config, monkeypatch):
    waited = []
    monkeypatch.setattr(stages, "barrier", waited.append)
    Run(small_config, data_only, None).data()
    assert waited == ["data"]
