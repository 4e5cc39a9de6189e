"""launch.sweep as a user meets it."""

import json
import shlex

import pytest

import small
import small_sweep
from atspeed_jax.runs import record
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.sweeps import results as sweep_results
from atspeed_jax.sweeps.backends import BackendError
from launch import sweep
from main_flags import flags_of
from mains import run_mains
from stubs import stub, stub_path

SWEEP = "tests/helpers/small_sweep.py"


@pytest.mark.slow
def test_a_sweep_borrows_measures_and_goes_on_where_it_was(small_run, tmp_path):
    workdir = tmp_path / "sweep"
    case = ("sweep", workdir, SWEEP, [f"--borrow={small_run.workdir}"], "")
    killed = (*case[:4], str(workdir / "words_0" / "draft" / "metrics.jsonl"))
    done = (*case[:3], ["--backend=xpk"], "")  # all of it is done: needs no cluster
    first, second, third = run_mains([killed, case, done])
    assert first.code == -9, first.err
    assert second.code == 0, second.err
    assert third.code == 0, third.err
    assert third.out.endswith(second.out[second.out.index("Runs side by side") :])
    for stage in ("data", "target", "teacher", "draft_sft"):
        assert (workdir / "kd_0" / stage).is_symlink()
        assert (workdir / "words_0" / stage).is_symlink()
    assert not (workdir / "kd_0" / "draft").is_symlink()
    assert small.snapshot(small_run.workdir) == small_run.files, "what is borrowed is never written"
    rows = json.loads((workdir / "sweep.json").read_text())
    assert [(row["run"], row["objective"], row["seed"], row["K"]) for row in rows] == [
        ("kd", "tree_kd", 0, 3),
        ("words", "word_kd", 0, 3),
    ]
    for row in rows:
        assert row["users"] == 4 == len(row["calls_by_user"])
        assert 1 <= row["target_calls_mean"] <= 3
        assert len(row["coverage_by_level"]) == 2
        assert row["target_fingerprint"]
    text = (workdir / "sweep.md").read_text()
    assert "Target calls minus those of words" in text
    assert "Runs side by side" in second.out
    assert (workdir / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs launch.sweep with these flags in this process; what trials measure is made up, sbatch takes jobs and waits.

    call.jobs(): the flags that each job has got for launch.sweep, oldest first. call.ran: trials, with the directories
    whose stages they may link.
    """
    monkeypatch.setenv("PATH", str(stub_path(tmp_path)))
    monkeypatch.setenv("LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("TMP_JOB", str(tmp_path / "job"))
    stub(tmp_path, "sbatch", 'cat >>"$TMP_JOB"; echo 4711')
    workdir, ran = tmp_path / "sweep", {}

    def rows_of(trial, settings, run, others):
        ran[trial.name] = [path.name for path in others]
        return [small_sweep.row(trial.run)]

    def call(*arguments):
        with flags_of(sweep, [f"--config={SWEEP}", f"--workdir={workdir}", *arguments]):
            sweep.sweep()

    def jobs():
        commands = [line for line in (tmp_path / "job").read_text().splitlines() if line.startswith("srun ")]
        words = [shlex.split(command.partition(" ||")[0]) for command in commands]
        return [[word for word in own[own.index("launch.sweep") + 1 :] if word != "--distributed"] for own in words]

    monkeypatch.setattr(sweep_results, "rows_of", rows_of)
    call.jobs, call.ran, call.workdir = jobs, ran, workdir
    return call


def test_trials_as_jobs_from_submission_to_tables(call, capfd):
    call("--backend=slurm", "--dry_run")
    assert not call.workdir.exists()
    assert "--only=kd_0" in capfd.readouterr().out
    run = call.workdir.parent / "run"
    call("--backend=slurm", f"--borrow={run}")  # which only the nodes see
    (run / "data").mkdir(parents=True)
    assert capfd.readouterr().out.endswith("Not done: kd_0, words_0.\n")
    assert not call.ran
    first, second = call.jobs()
    assert first[2:] == [f"--borrow={run}", "--only=kd_0"]
    assert second[-1] == "--only=words_0"
    call(*second[2:])  # as a node does
    assert call.ran == {"words_0": ["kd_0", "run"]}
    assert not (call.workdir / "sweep.md").exists()
    call("--backend=slurm")
    assert len(call.jobs()) == 2
    assert "Not done: kd_0." in (call.workdir / "sweep.md").read_text()
    with pytest.raises(BackendError, match="kd_0: slurm job 4711"):
        call()
    call("--backend=slurm", "--resubmit=kd_0")
    assert call.jobs()[2:] == [[*first[:2], "--only=kd_0"]]
    call(*first[2:])
    call("--backend=slurm", "--resubmit=kd_0")
    assert len(call.jobs()) == 3
    assert "Not done" not in (call.workdir / "sweep.md").read_text()
    assert [row["run"] for row in json.loads((call.workdir / "sweep.json").read_text())] == ["kd", "words"]


def test_trials_here_one_after_another(call, capfd):
    call("--only=kd_0")
    assert list(call.ran) == ["kd_0"]
    assert not (call.workdir / "words_0").exists()
    assert not capfd.readouterr().out
    call()
    assert list(call.ran) == ["kd_0", "words_0"]
    assert "Runs side by side" in capfd.readouterr().out


def test_the_first_of_several_processes_marks_directories_and_all_see_them(call, monkeypatch):
    seen = []
    monkeypatch.setattr(sweep, "is_writer", lambda: False)
    monkeypatch.setattr(record, "is_writer", lambda: False)
    monkeypatch.setattr(sweep, "check_same", lambda value, what: seen.append((what, call.workdir.exists())))
    monkeypatch.setattr(sweep_results, "check_shared", seen.append)
    monkeypatch.setattr(sweep_results, "run_trial", lambda *_: None)
    call("--only=kd_0")
    assert seen == [("config or --only", False), call.workdir]
    assert not call.workdir.exists()


def test_a_directory_with_nothing_to_borrow_is_named_before_anything_is_made(call):
    (call.workdir.parent / "empty").mkdir()
    for name in ("empty", "mistyped"):
        with pytest.raises(ConfigError, match=f"--borrow=.*{name}: there is no .*{name}/data; expected the workdir of"):
            call(f"--borrow={call.workdir.parent / name}")
    assert not call.workdir.exists()
