"""What trials leave behind, and the tables of those that are done."""

import json
import re
from types import SimpleNamespace

import pytest

import small_sweep
from atspeed_jax.sweeps import results
from atspeed_jax.utils import files


@pytest.fixture
def sweep(tmp_path):
    """(settings, trials kd_0 and words_0) with a directory each."""
    settings, made = small_sweep.made()
    for trial in made:
        (tmp_path / trial.name).mkdir()
    return settings, made


def finish(monkeypatch, workdir, trial, settings, **how):
    monkeypatch.setattr(results, "rows_of", lambda trial, *_: [small_sweep.row(trial.run, trial.seed, **how)])
    results.run_trial(workdir, trial, settings, None, [])


def test_a_trial_is_done_when_its_rows_are_written(sweep, tmp_path, monkeypatch):
    settings, (first, second) = sweep

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "rows_of", killed)
    with pytest.raises(KeyboardInterrupt):
        results.run_trial(tmp_path, first, settings, None, [])
    assert results.not_done(tmp_path, settings, [first, second]) == [first, second]
    finish(monkeypatch, tmp_path, first, settings, calls=2.0)
    assert results.not_done(tmp_path, settings, [first, second]) == [second]
    [row] = results.done_rows(tmp_path / first.name, first, settings)
    assert row["target_calls_mean"] == 2.0


def test_a_trial_with_other_settings_is_not_done(sweep, tmp_path, monkeypatch):
    settings, (first, second) = sweep
    finish(monkeypatch, tmp_path, first, settings)
    changed = first._replace(config=second.config)
    assert results.done_rows(tmp_path / first.name, changed, settings) is None
    assert results.done_rows(tmp_path / first.name, first._replace(seed=1), settings) is None
    config = small_sweep.get_config()
    config.measure[0]["beams"] = (2,)
    measured_otherwise, _ = small_sweep.made(config)
    assert results.done_rows(tmp_path / first.name, first, measured_otherwise) is None


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (lambda text: text[:40], "is damaged"),
        (lambda _: "[]", r"is damaged \(it holds a list, expected a JSON object"),
        (lambda _: '{"fingerprint": "a"}', r"is damaged \(it lacks rows"),
        (
            lambda text: text.replace('"target_calls_mean"', '"calls"'),
            r"is damaged \(expected rows with run, ",
        ),
    ],
)
def test_rows_that_are_damaged_name_their_file(sweep, tmp_path, monkeypatch, damaged, message):
    settings, made = sweep
    finish(monkeypatch, tmp_path, made[0], settings)
    path = tmp_path / "kd_0" / "rows.json"
    path.write_text(damaged(path.read_text()))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} {message}.*; delete it, and the next launch.sweep"):
        results.collect(tmp_path, settings, made)


def test_the_tables_say_what_is_missing(sweep, tmp_path, monkeypatch, capsys):
    settings, made = sweep
    results.collect(tmp_path, settings, made)
    assert capsys.readouterr().out == "Not done: kd_0, words_0.\n"
    assert not list(tmp_path.glob("sweep.*")), "no tables of nothing"
    finish(monkeypatch, tmp_path, made[0], settings)
    results.collect(tmp_path, settings, made)
    assert "Runs side by side" in capsys.readouterr().out
    assert "Not done: words_0." in (tmp_path / "sweep.md").read_text()
    assert [row["run"] for row in json.loads((tmp_path / "sweep.json").read_text())] == ["kd"]
    finish(monkeypatch, tmp_path, made[1], settings)
    results.collect(tmp_path, settings, made)
    text = (tmp_path / "sweep.md").read_text()
    assert "Not done" not in text
    assert "targets" not in text
    assert "Target calls minus those of words" in text
    assert [row["run"] for row in json.loads((tmp_path / "sweep.json").read_text())] == ["kd", "words"]


def test_runs_on_different_targets_are_told(sweep, tmp_path, monkeypatch, capsys):
    settings, made = sweep
    for trial in made:
        finish(monkeypatch, tmp_path, trial, settings, target=trial.run)
    results.collect(tmp_path, settings, made)
    assert "Seed 0 has 2 targets" in capsys.readouterr().out


@pytest.mark.parametrize("process", [0, 1])
def test_of_several_processes_all_work_and_one_writes(sweep, tmp_path, monkeypatch, process):
    settings, (trial, _) = sweep
    done, stages = [], ("data", "target", "teacher", "draft_sft", "draft")
    run = SimpleNamespace(workdir=tmp_path / trial.name, borrow=lambda stage, others: done.append(f"borrow {stage}"))
    run.make = done.append
    run.dataset, run.measurements = "stored", lambda: SimpleNamespace(target_fingerprint="abc")
    monkeypatch.setattr(results, "check_modes", lambda measures, dataset: done.append(f"check {dataset}"))
    monkeypatch.setattr(results, "Run", lambda *_: run)
    monkeypatch.setattr(results, "ModeTable", lambda *_: SimpleNamespace(rows=lambda: []))
    monkeypatch.setattr(files, "is_writer", lambda: process == 0)
    results.run_trial(tmp_path, trial, settings, None, [])
    steps = [step for stage in stages for step in (f"borrow {stage}", stage)]
    assert done == [*steps[:2], "check stored", *steps[2:]]
    assert (run.workdir / "rows.json").exists() == (process == 0)
