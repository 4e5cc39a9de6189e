"""launch.results as a user meets it; the tables are those of tests/launch/test_sweep_results.py."""

import pytest

import small
import small_sweep
from atspeed_jax.runs.record import WorkdirError
from atspeed_jax.sweeps import results as sweep_results
from launch import results
from main_flags import flags_of


def call(workdir):
    with flags_of(results, ["--config=tests/helpers/small_sweep.py", f"--workdir={workdir}"]):
        results.results()


def test_the_tables_of_what_is_done(tmp_path, monkeypatch, capsys):
    settings, made = small_sweep.made()
    monkeypatch.setattr(sweep_results, "rows_of", lambda trial, *_: [small_sweep.row(trial.run, trial.seed)])
    (tmp_path / "kd_0").mkdir()
    sweep_results.run_trial(tmp_path, made[0], settings, None, [])
    before = small.snapshot(tmp_path)
    call(tmp_path)
    told = capsys.readouterr().out
    assert "Runs side by side" in told
    assert told.endswith("Not done: words_0.\n")
    assert set(small.snapshot(tmp_path)) == {*before, "sweep.json", "sweep.md", "sweep.png"}


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(WorkdirError, match="none: there is no such directory; expected the directory of a sweep"):
        call(tmp_path / "none")
