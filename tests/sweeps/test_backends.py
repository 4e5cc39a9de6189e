"""Trials as jobs: submitted once, remembered, submitted again when asked. The schedulers are stubs."""

import json
from types import SimpleNamespace

import pytest

import small_sweep
from atspeed_jax.sweeps import backends
from atspeed_jax.sweeps.backends import Backend, BackendError, job_arguments, job_name
from launch.given_sweep import PODS
from stubs import stub, stub_path

BATCH = 'cat >"$JOBS/$RANDOM$RANDOM"; echo 4711'  # sbatch, which only takes the job


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """workdir, the trials kd_0 and words_0, and called(tool): the arguments of each call."""
    path, workdir, jobs = stub_path(tmp_path), tmp_path / "My_Sweep", tmp_path / "jobs"
    jobs.mkdir()
    for name, body in {"sbatch": BATCH, "xpk": ":", "gcloud": ":"}.items():
        stub(tmp_path, name, body)
    environment = {"CLUSTER": "c", "TPU_TYPE": "t", "IMAGE": "i", "TPU_NAME": "pod", "ZONE": "z", "EXTRA_FLAGS": ""}
    environment |= {"PATH": path, "JOBS": jobs, "LOGS": tmp_path / "logs", "SETUP": "", "PARTITION": "", "PAUSE": 0}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    _, made = small_sweep.made()
    for trial in made:
        (workdir / trial.name).mkdir(parents=True)

    def called(tool):
        file = tmp_path / "calls" / tool
        return [call.split("\n")[:-1] for call in file.read_text().split("call\n")[1:]] if file.exists() else []

    def codes(tool, *numbers):
        (tmp_path / "codes" / tool).write_text("".join(f"{number}\n" for number in numbers))

    def submitted():
        return [file.read_text() for file in jobs.iterdir()]

    return SimpleNamespace(place=tmp_path, workdir=workdir, made=made, called=called, codes=codes, submitted=submitted)


def backend(name, sweep):
    return Backend(name, PODS, ("--config=c.py", f"--workdir={sweep.workdir}", "--backend=slurm"))


def record(sweep, name="kd_0"):
    return json.loads((sweep.workdir / name / "job.json").read_text())


def test_a_trial_is_submitted_once(sweep, capsys):
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made, ())
    jobs = sorted(sweep.submitted(), key=lambda job: "words" in job)
    for job, trial in zip(jobs, ("kd_0", "words_0"), strict=True):
        program = f"-m launch.sweep --distributed --config=c.py --workdir={sweep.workdir} --only={trial} ||"
        assert program in job
        assert f"--job-name=my-sweep-{trial.replace('_', '-')}\n" in job
    found = record(sweep)
    assert (found["backend"], found["job"], found["attempt"], found["exit"]) == ("slurm", "4711", 1, None)
    note = "note: a job that finds no finished target trains its own; --borrow=RUN links that of RUN\n"
    assert capsys.readouterr().out.startswith(note)
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made, (), borrows=True)
    assert len(sweep.submitted()) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("[kd_0] slurm job 4711, submitted ")
    assert told[0].endswith(": --resubmit=kd_0")
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made, ["kd_0"])
    [job] = set(sweep.submitted()) - set(jobs)
    assert "--only=kd_0 " in job
    assert "--job-name=my-sweep-kd-0-2\n" in job
    assert record(sweep)["attempt"] == 2


def test_a_job_that_is_refused_leaves_no_record(sweep, monkeypatch):
    sweep.codes("sbatch", 1)
    with pytest.raises(BackendError, match=r"slurm\.sh ended with exit code 1; kd_0 was not submitted"):
        backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made, ())
    assert len(sweep.called("sbatch")) == 1
    assert not list(sweep.workdir.glob("*/job.json"))
    for name, variable in (("xpk", "IMAGE"), ("tpu_vm", "TPU_NAME")):
        monkeypatch.setenv(variable, "")
        with pytest.raises(BackendError, match=f"{name}.sh ended with exit code 2"):
            backends.submit(backend(name, sweep), sweep.workdir, sweep.made, ())
    assert not list(sweep.workdir.glob("*/job.json"))


@pytest.mark.parametrize("left", ["", '{"backend": "sl', "[]", "{}", None])
def test_a_submission_that_was_killed_is_not_repeated(sweep, left, monkeypatch, capsys):
    if left is None:
        with monkeypatch.context() as patch:
            patch.setattr(backends.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ())
    else:
        (sweep.workdir / "kd_0" / "job.json").write_text(left)
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ())
    assert not sweep.submitted()
    told = capsys.readouterr().out
    assert "--resubmit=kd_0" in told
    assert (f"a job may be at work: {sweep.workdir}/kd_0/job.json is damaged;" in told) == (left is not None)
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ["kd_0"])
    assert len(sweep.submitted()) == 1


def test_of_two_sweeps_at_once_one_gets_the_trial(sweep, monkeypatch):
    monkeypatch.setattr(backends, "read_job", lambda directory: None)  # both have looked before either wrote
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ())
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ())
    assert len(sweep.submitted()) == 1


def test_a_tpu_vm_takes_one_trial_after_another(sweep, capsys):
    sweep.codes("gcloud", 75, 3, 0)
    backends.submit(backend("tpu_vm", sweep), sweep.workdir, sweep.made, ())
    assert len(sweep.called("gcloud")) == 3, "the first was started again, and its failure stops nothing"
    assert [record(sweep, trial.name)["exit"] for trial in sweep.made] == [3, 0]
    assert "ended with exit code 3" in capsys.readouterr().out
    backends.submit(backend("tpu_vm", sweep), sweep.workdir, sweep.made[:1], ())
    assert len(sweep.called("gcloud")) == 3


def test_xpk_gets_a_new_name_for_each_attempt(sweep):
    backends.submit(backend("xpk", sweep), sweep.workdir, sweep.made[:1], ())
    backends.submit(backend("xpk", sweep), sweep.workdir, sweep.made[:1], ["kd_0"])
    names = [call[3] for call in sweep.called("xpk")]
    assert names == ["--workload=my-sweep-kd-0", "--workload=my-sweep-kd-0-2"]
    assert record(sweep)["job"] == "my-sweep-kd-0-2"


def test_a_preview_submits_and_writes_nothing(sweep, capfd, monkeypatch):
    stages = SimpleNamespace(done=lambda trial: False, stages=lambda trial: ["data: complete", f"draft: {trial.name}"])
    for name in ("slurm", "xpk", "tpu_vm"):
        backends.preview(backend(name, sweep), sweep.workdir, sweep.made, (), stages)
        told = capfd.readouterr().out
        job = f"[kd_0] {name} job my-sweep-kd-0, in {sweep.workdir}/kd_0\n  data: complete\n  draft: kd_0\n"
        assert told.startswith(job)
        assert "--only=words_0" in told
    backends.preview(backend("local", sweep), sweep.workdir, sweep.made[:1], (), stages)
    assert capfd.readouterr().out == f"[kd_0] here, in {sweep.workdir}/kd_0\n  data: complete\n  draft: kd_0\n"
    assert not any(map(sweep.called, ("sbatch", "xpk", "gcloud")))
    assert not (sweep.place / "logs").exists()
    assert not list(sweep.workdir.glob("*/*"))
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ())
    backends.preview(backend("slurm", sweep), sweep.workdir, sweep.made[:1], (), stages)
    assert "--resubmit=kd_0" in capfd.readouterr().out
    backends.preview(backend("slurm", sweep), sweep.workdir, sweep.made[:1], ["kd_0"], stages)
    assert "[kd_0] slurm job my-sweep-kd-0-2, in " in capfd.readouterr().out
    monkeypatch.setenv("NODES", "two")
    with pytest.raises(BackendError, match="would not submit words_0"):
        backends.preview(backend("slurm", sweep), sweep.workdir, sweep.made, (), stages)
    capfd.readouterr()
    stages.done = lambda trial: trial.name == "kd_0"
    stages.stages = lambda trial: (_ for _ in ()).throw(ValueError("too wide"))
    with pytest.raises(BackendError, match="words_0 would be refused: too wide"):
        backends.preview(backend("local", sweep), sweep.workdir, sweep.made, (), stages)
    assert capfd.readouterr().out.startswith(f"[kd_0] done: {sweep.workdir}/kd_0/rows.json\n[words_0] here")


def test_nothing_runs_here_where_a_job_may_be_at_work(sweep):
    backends.check_no_jobs(sweep.workdir, sweep.made, ())
    backends.submit(backend("slurm", sweep), sweep.workdir, sweep.made[1:], ())
    with pytest.raises(BackendError, match=r"words_0: slurm job 4711, .*--resubmit=words_0"):
        backends.check_no_jobs(sweep.workdir, sweep.made, ())
    backends.check_no_jobs(sweep.workdir, sweep.made, ["words_0"])
    backends.check_no_jobs(sweep.workdir, sweep.made, ())  # it is forgotten
    sweep.codes("gcloud", 3)
    backends.submit(backend("tpu_vm", sweep), sweep.workdir, sweep.made[:1], ())
    backends.check_no_jobs(sweep.workdir, sweep.made, ())  # it has ended


def test_names_that_every_scheduler_takes():
    assert job_name("Runs/Tree_KD..0", 1) == "runs-tree-kd-0"
    assert job_name("2024-kd_0", 1) == "sweep-2024-kd-0"
    long = [job_name(f"{'x' * 50}_{number}", attempt) for number in (0, 1) for attempt in (1, 2)]
    assert len(set(long)) == 4
    assert {len(name) for name in long} == {40}
    assert job_name(f"{'x' * 30}-{'y' * 30}", 1).startswith("x" * 30 + "-")


def test_a_job_is_told_what_it_is_and_not_where_it_runs():
    what = ["--config=c.py:short", "--config.seeds=(0, 1)", "--workdir", "only", "--borrow=a", "--verbosity=1"]
    where = ["--backend=xpk", "-backend", "slurm", "--only=a,b", "--only", "c", "--dry_run", "--nodry_run"]
    where += ["--dry_run=true", "--resubmit=x"]
    assert job_arguments([*what, *where]) == what
    assert job_arguments([*where, *what]) == what
