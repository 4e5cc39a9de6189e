"""Several processes on this machine, as on several hosts."""

import json
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.utils import distributed
from atspeed_jax.utils.distributed import ProcessError
from devices import ROOT, begin_processes, environment
from tests.training import toy


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(reports of both, their directory)."""
    directory = tmp_path_factory.mktemp("two")
    command = ["tests/helpers/several.py", str(directory), "PORT", "COUNT", "NUMBER", "{}"]
    begun = begin_processes(2, command, devices=2)
    said = [process.communicate(timeout=300) for process in begun]
    assert [process.returncode for process in begun] == [0, 0], [err[-2000:] for _, err in said]
    return [json.loads(out.splitlines()[-1]) for out, _ in said], directory


def test_all_see_one_array_of_which_each_holds_its_rows(two):
    reports, _ = two
    for report in reports:
        assert report["devices"] == [4, 2]
        assert report["own_rows"] == 2
        assert report["gathered"] == (2 * np.arange(8.0).reshape(4, 2)).tolist()


def test_only_the_first_writes(two):
    _reports, directory = two
    assert [path.name for path in directory.glob("written*")] == ["written_by_0.txt"]
    assert not list(directory.glob(".shared*"))


def test_what_the_first_finds_holds_for_all(two):
    assert [report["agreed"] for report in two[0]] == [[True, False]] * 2
    assert [report["looked"] for report in two[0]] == [[True, True], []]
    assert distributed.agreed(lambda: True)
    assert not distributed.agreed(lambda: False)


def test_what_differs_between_them_is_named(two):
    for report in two[0]:
        assert report["same"] is None
        assert report["shared"] is None
        assert "config of process 1 is not that of process 0: start every process with the same" in report["another"]
        assert "process 1 does not see" in report["not_shared"]
        assert "storage that all hosts share" in report["not_shared"]


def test_they_train_as_one_process_does(two, tmp_path):
    reports, directory = two
    alone = toy.fit_toy(tmp_path / "run", toy.toy_config(learning_rate=0.01, steps=10, eval_every=5))
    theirs, ours = (read_metrics(path / "run" / "metrics.jsonl") for path in (directory, tmp_path))
    for their, our in zip(theirs, ours, strict=True):
        assert their["step"] == our["step"]
        assert their["split"] == our["split"]
        shared = {"loss", "mse"} & set(our)
        assert shared
        assert all(their[name] == pytest.approx(our[name], rel=1e-5) for name in shared)
    for report in reports:
        for name, our in flat(alone).items():
            assert np.linalg.norm(our - flat(report["params"])[name]) <= 1e-5 * np.linalg.norm(our)


def flat(params):
    """Name -> array of the toy's parameters."""
    return {f"{group}/{name}": np.asarray(leaf) for group, own in params.items() for name, leaf in own.items()}


def test_one_process_alone_is_the_writer_and_waits_for_nobody(tmp_path):
    assert distributed.is_writer()
    distributed.barrier("nothing")
    distributed.check_same("a", "config")
    distributed.check_shared(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    gathered = distributed.gather({"a": jax.numpy.arange(3), "b": 1})
    assert isinstance(gathered["a"], np.ndarray)
    assert gathered["b"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, None), "give --coordinator, --num_processes and --process_id together"),
        ((None, 2, 0), "give --coordinator, --num_processes and --process_id together"),
        (("host:1", 2, 2), r"process 2 of 2: expected 0\.\.1"),
        (("host", 2, 0), "coordinator=host: expected HOST:PORT, such as host:8476"),
        (("host:", 2, 0), "coordinator=host:: expected HOST:PORT"),
    ],
)
def test_an_address_in_parts_is_refused(given, message):
    with pytest.raises(ProcessError, match=message):
        distributed.join(*given)


@pytest.mark.slow
def test_the_others_stop_when_one_is_killed_and_all_go_on_from_the_last_checkpoint(tmp_path):
    command = ["tests/helpers/several.py", str(tmp_path), "PORT", "COUNT", "NUMBER"]
    long = json.dumps({"steps": 60, "eval_every": 10, "checkpoint_every": 5})
    slow = json.dumps({"pause": 0.5})
    begun = begin_processes(2, [*command, long, slow])
    checkpoints = tmp_path / "run" / "checkpoints"
    while not (checkpoints / "10").exists():
        assert all(process.poll() is None for process in begun), begun[0].communicate()[1][-2000:]
        time.sleep(0.05)
    begun[1].kill()
    begun[1].communicate()
    since = time.monotonic()
    _, said = begun[0].communicate(timeout=90)
    assert begun[0].returncode != 0
    assert time.monotonic() - since < 60
    assert "process" in said.splitlines()[-1] or "JaxRuntimeError" in said
    left = max(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    assert left >= 10
    again = begin_processes(2, [*command, long])
    said = [process.communicate(timeout=300) for process in again]
    assert [process.returncode for process in again] == [0, 0], said[0][1][-2000:]
    report = json.loads(said[0][0].splitlines()[-1])
    assert report["first_batch"] == left  # no more is done again than what came after the last checkpoint
    whole = begin_processes(2, [word.replace(str(tmp_path), str(tmp_path / "whole")) for word in (*command, long)])
    said = [process.communicate(timeout=300) for process in whole]
    assert json.loads(said[0][0].splitlines()[-1])["params"] == report["params"]


@pytest.mark.slow
def test_sigterm_in_one_of_them_stops_all_after_the_same_step(tmp_path):
    command = ["tests/helpers/several.py", str(tmp_path), "PORT", "COUNT", "NUMBER"]
    settings = json.dumps({"steps": 60, "eval_every": 10, "checkpoint_every": 50}), json.dumps({"pause": 0.3})
    begun = begin_processes(2, [*command, *settings])
    while len(read_metrics(tmp_path / "run" / "metrics.jsonl")) < 3:
        assert all(process.poll() is None for process in begun), begun[0].communicate()[1][-2000:]
        time.sleep(0.05)
    begun[1].terminate()
    said = [process.communicate(timeout=120)[1] for process in begun]
    assert [process.returncode for process in begun] == [75, 75], said
    steps = {re.search(r"saved at step (\d+)", one)[1] for one in said}
    assert len(steps) == 1
    assert (tmp_path / "run" / "checkpoints" / (saved := steps.pop())).is_dir()
    # Again, before the first step of what goes on there.
    begun = begin_processes(2, [*command, settings[0], json.dumps({"pause": 0.3, "term": 1})])
    said = [process.communicate(timeout=120)[1] for process in begun]
    assert [process.returncode for process in begun] == [75, 75], said
    assert {int(re.search(r"saved at step (\d+)", one)[1]) for one in said} < set(range(int(saved) + 1, 60))


@pytest.mark.parametrize(
    ("variables", "coordinator", "message"),
    [
        (
            {"SLURM_JOB_ID": "17"},
            None,
            "in SLURM job 17, but srun did not start it, .*: put srun in front of ",
        ),
        (
            {"SLURM_JOB_ID": "17", "SLURM_STEP_NODELIST": "a,b"},
            None,
            "this process did not join at the address",
        ),
        ({"SLURM_JOB_ID": "17"}, "a:1", "process 1 of 2 did not join at a:1 .no such host.: is its port free"),
        ({}, None, "this process did not join at the address the cluster gives"),
    ],
)
def test_who_does_not_join_learns_why(monkeypatch, variables, coordinator, message):
    def initialize(*_, **__):
        raise ValueError("no such host")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProcessError, match=message):
        distributed.join(*((coordinator, 2, 1) if coordinator else (None, None, None)))


@pytest.mark.slow
def test_sigterm_ends_one_process_that_joined_nobody():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = (
        "import os, signal, time\nfrom atspeed_jax.utils import distributed\n"
        f"distributed.join('localhost:{port}', 1, 0)\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(5)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(1), cwd=ROOT)
    assert run.returncode == -15, run.stderr


@pytest.mark.slow
def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = f"from atspeed_jax.utils import distributed; distributed.join('localhost:{port}', 1, 0)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(1), cwd=ROOT)
    assert f"process 0 of 1 did not join at localhost:{port}" in run.stderr
    assert "is its port free" in run.stderr
