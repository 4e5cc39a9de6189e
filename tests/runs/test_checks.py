"""What is refused before any long work, asked for the way a run does."""

import dataclasses
import shutil

import numpy as np
import pytest

import small
from atspeed_jax.alignment.teacher import TeacherError
from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.runs.checks import check_grid, check_modes
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.training.workdir import WorkdirError, claimed_workdir

MODES = ModesConfig(
    beams=(5,), main_beams=(), widths=((4, 10),), drafter="draft", norms=("vocab",), tolerances=(), budgets=(),
    temperature=1.0, seeds=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("decode.widths", ("all",), r"config.decode.widths: .* has 1 entries; ids of length 3 need 2"),
        ("decode.widths", ("all", 10, 10), r"config.decode.widths: .* has 3 entries; ids of length 3 need 2"),
        ("decode.widths", (3, "all"), r"config.decode.widths: width 3 of level 1 is below min\(K=10, 4 prefixes"),
        ("decode.widths", ("all", 9), r"config.decode.widths: width 9 of level 2 is below min\(K=10, 14 prefixes"),
        ("teacher.beams", 11, r"config.decode.widths: width 10 of level 2 is below min\(K=11"),
        ("evaluate.beams", (5, 11), r"config.decode.widths: width 10 of level 2 is below min\(K=11"),
        ("evaluate.grid_beams", (11,), r"config.decode.widths: width 10 of level 2 is below min\(K=11"),
        ("evaluate.grid_widths", ((4, 10), (4, 9)), r"config.evaluate.grid_widths\[1\]: width 9 of level 2"),
        ("decode.budget", 9, r"config.decode.budget=9: expected at least the largest K decoded, 10, or None"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(small_config, data_only, path, value, message):
    with pytest.raises(ValueError, match=message):
        Run(small.changed(small_config, path, value), data_only, None).all()
    assert [entry.name for entry in data_only.iterdir()] == ["data"]


@pytest.mark.parametrize("part", ["codes", "train", "test"])
def test_other_data_than_the_workdir_was_built_from(real_data, tmp_path, part):
    config, source, directory = real_data.config, real_data.source, real_data.directory
    workdir = tmp_path / "run"
    Run(config, workdir, directory).data()
    before = small.snapshot(workdir)
    if part == "codes":
        other = np.array(source.codes)
        other[[0, 1]] = other[[1, 0]]
        assert (other != source.codes).any()
    else:
        other = (getattr(source, part)[0][:0], *getattr(source, part)[1:])
    odd = small.write_atspeed(tmp_path / "odd", dataclasses.replace(source, **{part: other}))
    message = "data was built from other interactions or item codes than .*odd gives: use another --workdir"
    for stage in ("data", "target"):
        with pytest.raises(ValueError, match=message):
            getattr(Run(config, workdir, odd), stage)()
    assert small.snapshot(workdir) == before


@pytest.mark.parametrize("split", ["valid", "test"])
def test_an_empty_split_is_refused_before_it_is_stored(real_data, tmp_path, capsys, split):
    config, source = real_data.config, real_data.source
    nobody = tuple(items[:0] for items in getattr(source, split))
    directory = small.write_atspeed(tmp_path / "odd", dataclasses.replace(source, **{split: nobody}))
    with pytest.raises(ValueError, match=f"'odd': nobody has {split} items"):
        Run(config, tmp_path / "run", directory).data()
    assert not (tmp_path / "run").exists()
    assert not capsys.readouterr().out
    Run(config, tmp_path / "run", real_data.directory).data()  # the corrected files
    assert "data of shop" in capsys.readouterr().out
    assert (tmp_path / "run" / "data" / "catalog.json").exists()


def test_settings_that_do_not_fit_the_data_are_refused_before_they_are_stored(small_config, tmp_path):
    with pytest.raises(ValueError, match=r"config\.decode\.widths: width 9 of level 2"):
        Run(small.changed(small_config, "decode.widths", ("all", 9)), tmp_path / "run", None).data()
    assert not (tmp_path / "run").exists()


def test_stored_data_are_told_again_where_that_is_asked_for(small_config, data_only, capsys):
    Run(small_config, data_only, None).data()
    assert not capsys.readouterr().out
    Run(small_config, data_only, None).data(told=True)
    assert "data of synthetic" in capsys.readouterr().out


def begun(run):
    """The stages that a run says it begins, each with whether the workdir is there by then."""
    seen = []
    run.begins = lambda stage: seen.append((stage, run.workdir.exists()))
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
        claimed_workdir(workdir / "target", "target", run.stage_fingerprint("target")),
        pytest.raises(WorkdirError, match="is in use by another process"),
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


def test_widths_of_what_a_sweep_measures_are_checked_when_its_data_are_there(small_config, data_only):
    dataset = Run(small_config, data_only, None).dataset
    check_modes([MODES], dataset)
    check_grid("--widths", [(4, 10), ("all", 1)], dataset)
    with pytest.raises(ValueError, match=r"--widths: widths=\('all',\) has 1 entries; ids of length 3 need 2"):
        check_grid("--widths", [(4, 10), ("all",)], dataset)
    wrong = dataclasses.replace(MODES, widths=((4, 10), (1, 2, 3)))
    with pytest.raises(ValueError, match=r"config.measure\[1\].widths: widths=\(1, 2, 3\) has 3 entries; ids of len"):
        check_modes([MODES, wrong], dataset)
