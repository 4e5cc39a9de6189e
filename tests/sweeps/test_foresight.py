"""What a sweep says that its trials would do, beside what they then do."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import small
import small_sweep
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.sweeps import results as sweep_results
from atspeed_jax.sweeps.foresight import Foresight
from atspeed_jax.sweeps.trials import Trial


def told(workdir: Path, made: list[Trial], settings, lent=(), waits=True) -> dict[str, dict[str, str]]:
    """Name of a trial -> stage -> what it would do."""
    others = {trial.name: [workdir / other.name for other in made if other is not trial] + list(lent) for trial in made}
    foresight = Foresight(workdir, None, settings, others, waits=waits)
    return {trial.name: dict(line.split(": ", 1) for line in foresight.stages(trial)) for trial in made}


@pytest.fixture
def sweep():
    """(settings, trials kd_0 and words_0), which share all stages but their drafts."""
    return small_sweep.made()


def test_of_an_empty_directory_the_first_makes_what_the_others_link(sweep, tmp_path):
    settings, made = sweep
    found = told(tmp_path / "new", made, settings)
    runs = dict.fromkeys((*sweep_results.TRIAL_STAGES, "measurements"), "runs") | {"measurements": "run"}
    assert found["kd_0"] == runs
    link = f"linked from {tmp_path}/new/kd_0, which makes it first"
    assert found["words_0"] == runs | dict.fromkeys(("data", "target", "teacher", "draft_sft"), link)
    assert told(tmp_path / "new", made, settings, waits=False)["words_0"] == runs, "jobs do not wait for each other"
    assert not list(tmp_path.iterdir())


def test_what_a_run_lends_is_what_a_trial_links(sweep, small_run, tmp_path):
    settings, made = sweep
    found = told(tmp_path, made, settings, [small_run.workdir])
    link = f"linked from {small_run.workdir}"
    assert found["kd_0"] == found["words_0"] == {
        **dict.fromkeys(("data", "target", "teacher", "draft_sft"), link), "draft": "runs", "measurements": "run"
    }  # fmt: skip
    assert small.snapshot(small_run.workdir) == small_run.files
    assert not list(tmp_path.iterdir())


def test_a_draft_of_the_targets_layers_begins_from_one_target_alone(sweep, small_run, tmp_path):
    """Its first training is linked only where the target is the same, which may have to be made first."""
    settings, made = sweep
    layers = dataclasses.replace(made[0].config, draft=TargetLayersConfig((0,)))
    other = small.changed(layers, "train_target.epochs", 1.0)
    trials = [made[0]._replace(config=layers), made[1]._replace(config=layers), made[1]._replace(config=other)]
    trials = [one._replace(name=name) for one, name in zip(trials, "abc", strict=True)]
    found = told(tmp_path, trials, settings, [small_run.workdir])
    assert found["a"]["target"] == f"linked from {small_run.workdir}"
    assert found["a"]["draft_sft"] == "runs"
    assert found["b"]["draft_sft"] == f"linked from {tmp_path}/a, which makes it first"
    assert (found["c"]["target"], found["c"]["draft_sft"]) == ("runs", "runs")
    untrained = dataclasses.replace(layers, train_draft=None)
    assert told(tmp_path, [made[0]._replace(config=untrained)], settings)["kd_0"]["draft_sft"] == "nothing to train"


def test_of_another_target_only_what_does_not_depend_on_it_is_linked(sweep, small_run, small_config, tmp_path):
    settings, made = sweep
    changed = small.changed(made[0].config, "train_target.epochs", 1.0)
    found = told(tmp_path, [made[0]._replace(config=changed), made[1]], settings, [small_run.workdir])
    link = f"linked from {small_run.workdir}"
    assert (found["kd_0"]["data"], found["kd_0"]["draft_sft"]) == (link, link)
    assert (found["kd_0"]["target"], found["kd_0"]["teacher"]) == ("runs", "runs")
    assert found["words_0"]["teacher"] == link


def test_what_is_there_is_complete_stopped_or_refused(sweep, small_run, tmp_path):
    settings, made = sweep
    own = shutil.copytree(small_run.workdir, tmp_path / "kd_0")
    (own / "draft" / "metadata.json").unlink()
    (own / "teacher").rename(tmp_path / "away")
    record = json.loads((own / "draft_sft" / "metadata.json").read_text())
    (own / "draft_sft" / "metadata.json").write_text(json.dumps(record | {"fingerprint": "another"}))
    before = small.snapshot(tmp_path)
    [found] = told(tmp_path, made[:1], settings).values()
    assert found == {
        "data": "complete",
        "target": "complete",
        "teacher": "runs",
        "draft_sft": f"REFUSED, {own}/draft_sft was made with other settings",
        "draft": "runs, from where it was stopped",
        "measurements": "run",
    }
    assert small.snapshot(tmp_path) == before


def test_settings_that_a_trial_would_be_refused_for(sweep, small_run, tmp_path):
    settings, made = sweep
    changed = small.changed(made[0].config, "decode.widths", ("all", 9))
    with pytest.raises(ValueError, match="width 9 of level 2 is below"):
        told(tmp_path, [made[0]._replace(config=changed)], settings, [small_run.workdir])


def test_who_is_done(sweep, tmp_path, monkeypatch):
    settings, made = sweep
    foresight = Foresight(tmp_path, None, settings, {}, waits=True)
    assert not foresight.done(made[0])
    monkeypatch.setattr(sweep_results, "rows_of", lambda *_: [])
    (tmp_path / "kd_0").mkdir()
    sweep_results.run_trial(tmp_path, made[0], settings, None, [])
    assert foresight.done(made[0])
    assert not foresight.done(made[1])
