"""The trials of a sweep as jobs of a cluster, submitted by the scripts of launch/pods.

A trial is submitted once: DIR/TRIAL/job.json remembers its job. Every job works in its
trial's directory and waits for no other.
"""

import dataclasses
import json
import os
import re
import subprocess
import zlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atspeed_jax.sweeps.foresight import Foresight
from atspeed_jax.sweeps.results import ROWS_FILE
from atspeed_jax.sweeps.trials import Trial
from atspeed_jax.utils import files

LOCAL = "local"
CLUSTERS = ("slurm", "xpk", "tpu_vm")
WAITS = ("tpu_vm",)  # these scripts end with the job, the others when the job is submitted
JOB_FILE = "job.json"
NAME_LENGTH = 40  # XPK's limit
NOT_STARTED = 2  # exit code of the scripts for a mistake: nothing was submitted
# Flags of launch.sweep that say where and which trials run, not what they are.
NOT_FOR_JOBS = ("backend", "only", "resubmit", "dry_run", "nodry_run")


class BackendError(ValueError):
    """A job that is refused, or a trial that a job may be working on."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where the trials of a sweep run.

    Attributes:
      name: LOCAL, or one of CLUSTERS.
      scripts: directory of the scripts that submit jobs, NAME.sh each.
      arguments: command line of the sweep, which its jobs repeat.
    """

    name: str
    scripts: Path
    arguments: tuple[str, ...]

    @property
    def script(self) -> Path:
        return self.scripts / f"{self.name}.sh"

    def command(self, trial: str, *options: str) -> list[str]:
        """Returns what submits the job of one trial."""
        return [
            str(self.script), *options, "launch.sweep", "--", *job_arguments(self.arguments), f"--only={trial}"
        ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """What is known of a trial's job.

    Attributes:
      backend: one of CLUSTERS.
      name: the job's name at the scheduler.
      attempt: 1 for the first job of the trial.
      submitted: time in ISO format.
      job: the scheduler's id, once that is known.
      exit: exit code of a job that was waited for, once it has ended.
    """

    backend: str
    name: str
    attempt: int
    submitted: str
    job: str | None = None
    exit: int | None = None

    def __str__(self) -> str:
        job = f"{self.backend} job {self.job or self.name}, submitted {self.submitted}"
        return job if self.exit is None else f"{job}, ended with exit code {self.exit}"


@dataclasses.dataclass(frozen=True)
class DamagedJob:
    """A job file that cannot be read. A sweep that was killed may have left it."""

    path: Path
    attempt: int = 1
    exit: None = None

    def __str__(self) -> str:
        return f"a job may be at work: {self.path} is damaged"


def submit(
    backend: Backend, workdir: Path, todo: Sequence[Trial], again: Collection[str], *, borrows: bool = False
) -> None:
    """Submits the trials that have no job yet. On a TPU VM each job is waited for.

    Args:
      backend: one of the clusters.
      workdir: directory of the sweep.
      todo: trials that are not done.
      again: names of trials whose earlier jobs are gone. They get another job.
      borrows: whether the jobs are given runs to link finished stages from.

    Raises:
      BackendError: for the first job that is refused. Later ones are not submitted.
    """
    if len(todo) > 1 and not borrows:
        print("note: a job that finds no finished target trains its own; --borrow=RUN links that of RUN")
    for trial in todo:
        path, earlier = workdir / trial.name / JOB_FILE, read_job(workdir / trial.name)
        if earlier and trial.name not in again:
            print(f"[{trial.name}] {_waiting(trial.name, earlier)}", flush=True)
            continue
        submitted = datetime.now(UTC).isoformat(timespec="seconds")
        job = Job(backend.name, _next_name(workdir, trial, earlier), _next_attempt(earlier), submitted)
        if _claim(path, job):
            print(f"[{trial.name}] {backend.name}, {job.name}", flush=True)
            _run(backend, trial.name, path, job)


def preview(
    backend: Backend, workdir: Path, picked: Sequence[Trial], again: Collection[str], foresight: Foresight
) -> None:
    """Prints what would run, where, and what each of its stages would do.

    Args:
      backend: where the trials would run.
      workdir: directory of the sweep.
      picked: trials that would run.
      again: see `submit`.
      foresight: what the stages of a trial would do.

    Raises:
      BackendError: for a job or a trial that would be refused.
    """
    for trial in picked:
        directory, earlier = workdir / trial.name, read_job(workdir / trial.name)
        if foresight.done(trial):
            print(f"[{trial.name}] done: {directory / ROWS_FILE}")
            continue
        if earlier and earlier.exit is None and trial.name not in again:
            print(f"[{trial.name}] {_waiting(trial.name, earlier)}")
            continue
        name = _next_name(workdir, trial, earlier)
        where = "here" if backend.name == LOCAL else f"{backend.name} job {name}"
        print(f"[{trial.name}] {where}, in {directory}")
        try:
            stages = foresight.stages(trial)
        except ValueError as error:
            raise BackendError(f"{trial.name} would be refused: {error}") from error
        print(*(f"  {stage}" for stage in stages), sep="\n", flush=True)
        if backend.name != LOCAL:
            environment = os.environ | {"NAME": name}
            if subprocess.run(backend.command(trial.name, "--dry_run"), env=environment).returncode:
                raise BackendError(f"{backend.script} would not submit {trial.name}")


def check_no_jobs(workdir: Path, todo: Sequence[Trial], again: Collection[str]) -> None:
    """Checks that no job may be at work in a trial's directory, before trials run here.

    The job files of the trials in `again` are deleted.

    Raises:
      BackendError: for the first trial whose job has not ended.
    """
    for trial in todo:
        if trial.name in again:
            (workdir / trial.name / JOB_FILE).unlink(missing_ok=True)
        elif (job := read_job(workdir / trial.name)) and job.exit is None:
            raise BackendError(f"{trial.name}: {_waiting(trial.name, job)}")


def read_job(directory: Path) -> Job | DamagedJob | None:
    """Returns what is known of the job of a trial, None without a job."""
    path = directory / JOB_FILE
    try:
        found = files.read_json(
            path, "it is not known", {"backend": str, "name": str, "attempt": int, "submitted": str}
        )
    except FileNotFoundError:
        return None
    except ValueError:
        return DamagedJob(path)
    fields: dict[str, Any] = {field.name: found.get(field.name) for field in dataclasses.fields(Job)}
    return Job(**fields)


def _next_attempt(earlier: Job | DamagedJob | None) -> int:
    return earlier.attempt + 1 if earlier else 1


def _next_name(workdir: Path, trial: Trial, earlier: Job | DamagedJob | None) -> str:
    return job_name(f"{workdir.name}-{trial.name}", _next_attempt(earlier))


def _claim(path: Path, job: Job) -> bool:
    """Writes the job file, and returns whether this sweep got the trial.

    Of two sweeps at the same time one gets it. The file is written before the job is
    submitted, so that a kill in between cannot lead to two jobs.
    """
    if job.attempt > 1:
        path.unlink(missing_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(job), file)
    except FileExistsError:
        return False
    return True


def _run(backend: Backend, trial: str, path: Path, job: Job) -> None:
    waits = backend.name in WAITS
    environment, output = os.environ | {"NAME": job.name}, None if waits else subprocess.PIPE
    done = subprocess.run(backend.command(trial), env=environment, stdout=output, text=True)
    if done.returncode == NOT_STARTED or (done.returncode and not waits):
        path.unlink()
        raise BackendError(f"{backend.script} ended with exit code {done.returncode}; {trial} was not submitted")
    ended = {"exit": done.returncode} if waits else {"job": done.stdout.strip().rpartition("\n")[2]}
    job = dataclasses.replace(job, **ended)
    files.write_json(path, dataclasses.asdict(job))
    print(f"[{trial}] {job}", flush=True)


def _waiting(trial: str, job: Job | DamagedJob) -> str:
    return f"{job}; if that job is gone: --resubmit={trial}"


def job_name(name: str, attempt: int) -> str:
    """Returns a job name that every scheduler takes.

    It has lower-case letters, digits and dashes, begins with a letter and is at most
    NAME_LENGTH long. A name that is cut ends in a checksum of the whole name. Each
    attempt has another name, since XPK asks for that.
    """
    full = f"{name}-{attempt}" if attempt > 1 else name
    text = re.sub("[^a-z0-9]+", "-", full.lower()).strip("-")
    text = text if text[:1].isalpha() else f"sweep-{text}"
    if len(text) > NAME_LENGTH:
        text = f"{text[: NAME_LENGTH - 9].rstrip('-')}-{zlib.crc32(full.encode()):08x}"
    return text


def job_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns the sweep's command line without the flags in NOT_FOR_JOBS."""
    kept, is_value = [], False  # is_value: the argument is the value of a flag that was left out
    for argument in arguments:
        flag, equals, _ = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag in NOT_FOR_JOBS:
            is_value = not equals and not flag.endswith("dry_run")
        elif is_value:
            is_value = False
        else:
            kept.append(argument)
    return kept
