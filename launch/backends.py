"""The trials of a sweep as jobs of a cluster, by the scripts in launch/pods.

A trial is submitted once: DIR/TRIAL/job.json remembers it. Every job works in its trial's own directory and waits for
no other.
"""

import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from atspeed_jax.utils import files
from launch.foresight import Foresight
from launch.outcomes import ROWS_FILE
from launch.trials import Trial

PODS = Path(__file__).parent / "pods"
CLUSTERS = ("slurm", "xpk", "tpu_vm")
WAITS = ("tpu_vm",)  # their scripts end with the job, the others when it is submitted
RECORD_FILE = "job.json"
NAME_LENGTH = 40  # XPK's limit
NOT_STARTED = 2  # exit code of the scripts for a mistake: nothing was submitted
# Flags of launch.sweep that say where and which trials run, not what they are.
OWN = ("backend", "only", "resubmit", "dry_run", "nodry_run")


class BackendError(ValueError):
    """A job that is refused, or a trial that a job may be working on."""


def submit(backend: str, workdir: Path, todo: Sequence[Trial], again: Collection[str]) -> None:
    """Submits the trials as jobs, but for those that have one; on a TPU VM each is waited for.

    again: names of trials whose earlier jobs are gone. Raises BackendError for the first job that is refused; later
    ones are then not submitted.
    """
    for trial in todo:
        directory, earlier = workdir / trial.name, read_record(workdir / trial.name)
        if earlier and trial.name not in again:
            print(f"[{trial.name}] {_waiting(trial.name, earlier)}", flush=True)
            continue
        attempt = earlier["attempt"] + 1 if earlier else 1
        record = _record(backend, _next_name(workdir, trial, earlier), attempt)
        if _claim(directory / RECORD_FILE, record):
            print(f"[{trial.name}] {backend}, {record['name']}", flush=True)
            _run(backend, trial.name, directory / RECORD_FILE, record)


def preview(backend: str, workdir: Path, picked: Sequence[Trial], again: Collection[str], foresight: Foresight) -> None:
    """Prints what would run, where, and what each of its stages would do.

    Raises BackendError for a job or a trial that would be refused.
    """
    for trial in picked:
        directory, earlier = workdir / trial.name, read_record(workdir / trial.name)
        if foresight.done(trial):
            print(f"[{trial.name}] done: {directory / ROWS_FILE}")
            continue
        if earlier and earlier["exit"] is None and trial.name not in again:
            print(f"[{trial.name}] {_waiting(trial.name, earlier)}")
            continue
        where = "here" if backend == "local" else f"{backend} job {_next_name(workdir, trial, earlier)}"
        print(f"[{trial.name}] {where}, in {directory}")
        try:
            stages = foresight.stages(trial)
        except ValueError as error:
            raise BackendError(f"{trial.name} would be refused: {error}") from error
        print(*(f"  {stage}" for stage in stages), sep="\n", flush=True)
        if backend != "local":
            environment = os.environ | {"NAME": _next_name(workdir, trial, earlier)}
            if subprocess.run(_command(backend, trial.name, "--dry_run"), env=environment).returncode:
                raise BackendError(f"launch/pods/{backend}.sh would not submit {trial.name}")


def _next_name(workdir: Path, trial: Trial, earlier: dict | None) -> str:
    return job_name(f"{workdir.name}-{trial.name}", earlier["attempt"] + 1 if earlier else 1)


def check_no_jobs(workdir: Path, todo: Sequence[Trial], again: Collection[str]) -> None:
    """Before the trials are run here: raises BackendError if a job may be at work in the directory of one.

    The records of those in `again` are deleted.
    """
    for trial in todo:
        if trial.name in again:
            (workdir / trial.name / RECORD_FILE).unlink(missing_ok=True)
        elif (record := read_record(workdir / trial.name)) and record["exit"] is None:
            raise BackendError(f"{trial.name}: {_waiting(trial.name, record)}")


def read_record(directory: Path) -> dict | None:
    """What is known of a trial's job: backend, name, attempt, when it was submitted; the scheduler's id (job) once that
    is known, the exit code (exit) of one that was waited for. None if there is no job."""
    try:
        return json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # just being written by another sweep, or that was killed
        return _record("unknown", directory.name, 1)


def _record(backend: str, name: str, attempt: int) -> dict:
    submitted = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "backend": backend, "name": name, "attempt": attempt, "submitted": submitted, "job": None, "exit": None
    }  # fmt: skip


def _claim(path: Path, record: dict) -> bool:
    """Writes the record before the job is submitted, so that a kill in between cannot lead to two. False: of two sweeps
    at the same time, the other one got the trial."""
    if record["attempt"] > 1:
        path.unlink(missing_ok=True)
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(record, file)
    except FileExistsError:
        return False
    return True


def _run(backend: str, name: str, path: Path, record: dict) -> None:
    waits = backend in WAITS
    output = None if waits else subprocess.PIPE
    done = subprocess.run(_command(backend, name), env=os.environ | {"NAME": record["name"]}, stdout=output, text=True)
    if done.returncode == NOT_STARTED or (done.returncode and not waits):
        path.unlink()
        raise BackendError(f"launch/pods/{backend}.sh ended with exit code {done.returncode}; {name} was not submitted")
    ended = {"exit": done.returncode} if waits else {"job": done.stdout.strip().rpartition("\n")[2]}
    files.write_json(path, record | ended)
    print(f"[{name}] {_described(record | ended)}", flush=True)


def _command(backend: str, name: str, *options: str) -> list[str]:
    arguments = job_arguments(sys.argv[1:])
    return [str(PODS / f"{backend}.sh"), *options, "launch.sweep", "--", *arguments, f"--only={name}"]


def _waiting(name: str, record: dict) -> str:
    return f"{_described(record)}; if that job is gone: --resubmit={name}"


def _described(record: dict) -> str:
    job = f"{record['backend']} job {record['job'] or record['name']}, submitted {record['submitted']}"
    return job if record["exit"] is None else f"{job}, ended with exit code {record['exit']}"


def job_name(name: str, attempt: int) -> str:
    """A name that every scheduler takes: lower-case letters, digits and dashes, a letter first, not too long.

    A name that is cut ends in a checksum of all of it; each attempt has a name of its own, as XPK wants it.
    """
    full = f"{name}-{attempt}" if attempt > 1 else name
    text = re.sub("[^a-z0-9]+", "-", full.lower()).strip("-")
    text = text if text[:1].isalpha() else f"sweep-{text}"
    if len(text) > NAME_LENGTH:
        text = f"{text[: NAME_LENGTH - 9].rstrip('-')}-{zlib.crc32(full.encode()):08x}"
    return text


def job_arguments(argv: Sequence[str]) -> list[str]:
    """The sweep's command line without the flags of OWN."""
    kept, value = [], False  # value: the next argument is that of a flag left out
    for argument in argv:
        flag, equals, _ = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag in OWN:
            value = not equals and not flag.endswith("dry_run")
        elif value:
            value = False
        else:
            kept.append(argument)
    return kept
