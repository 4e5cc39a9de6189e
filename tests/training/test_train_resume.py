"""The loop on a toy regression (toy.py): killed, resumed, read back, on one device and on four."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.training.checkpoint import CheckpointError, fingerprint_of, load_params
from atspeed_jax.training.directory import TrainingDirectoryError, claimed_directory
from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.preemption import Preempted
from atspeed_jax.training.train_checkpoints import TrainCheckpoints
from tests.training import toy

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).with_name("toy.py")


class Interrupted(Exception):
    pass


def run_toy(workdir, *, kills, changes, environment):
    result = subprocess.run(
        [sys.executable, str(TOY), str(workdir), json.dumps(kills), json.dumps(changes)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/helpers")))} | dict(environment),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def without_time(records):
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_killed_runs_end_alike(workdir, kills, uninterrupted, environment):
    report = run_toy(workdir, kills=kills, changes={}, environment=environment)
    assert [death["status"] for death in report["deaths"]] == [9] * len(kills), report["deaths"]
    assert report["params"] == fingerprint_of(uninterrupted[1]), report["deaths"]
    assert report["records"] == without_time(read_metrics(uninterrupted[0] / "metrics.jsonl")), report["deaths"]
    return report["deaths"]


def test_a_run_killed_anywhere_ends_with_the_same_bits_and_the_same_log(tmp_path, uninterrupted, cache):
    kills = [
        ["batch", 8],  # between checkpoints
        ["file", "checkpoints/12.*tmp"],  # while the checkpoint of step 12 is being written
        ["file", "checkpoints/20"],  # right after an evaluation's checkpoint appeared, before older ones go
        ["file", "params.*tmp"],  # while the finished parameters are being written
    ]
    deaths = assert_killed_runs_end_alike(tmp_path / "run", kills, uninterrupted, cache)
    assert "checkpoints/12.orbax-checkpoint-tmp" in deaths[1]["left"]
    assert "checkpoints/12" not in deaths[1]["left"]
    assert "metadata.json" not in deaths[3]["left"]


@pytest.mark.slow
def test_runs_killed_at_random_end_with_the_same_bits(tmp_path, uninterrupted):
    for seed in range(4):
        rng = random.Random(seed)
        kills = [["batch", rng.randrange(40)] for _ in range(2)] + [["seconds", rng.uniform(0, 0.4)] for _ in range(4)]
        # A kill late in the run leaves too little for an earlier one to come after.
        kills.sort(key=lambda kill: kill[1] if kill[0] == "batch" else -1)
        if kills[-1][1] < kills[-2][1] + 3:
            kills.pop()
        assert_killed_runs_end_alike(tmp_path / f"run{seed}", kills, uninterrupted, environment={})


def test_a_finished_run_is_read_back_without_work(uninterrupted):
    def never(*_):
        raise AssertionError("work was done")

    workdir, params = uninterrupted
    before = contents(workdir)
    with claimed_directory(workdir, "toy", "toy-1"):  # reading needs no claim, so nobody has to wait
        again = toy.fit_toy(workdir, toy.toy_config(), loss=never, evaluate=never, batches=toy.ToyBatches(never))
    assert fingerprint_of(again) == fingerprint_of(params)
    assert contents(workdir) == before


def test_a_finished_run_that_lost_its_metadata_is_not_trained_again(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    (tmp_path / "run" / "metadata.json").unlink()
    with pytest.raises(
        CheckpointError, match=f"run/metadata.json is missing .*restore it, or move {tmp_path}/run away"
    ):
        toy.fit_toy(tmp_path / "run", toy.toy_config())


def test_a_pruned_run_is_read_back_without_work(uninterrupted, tmp_path):
    """Parameters and metadata.json are all that a finished run needs, and nothing else is written."""

    def never(*_):
        raise AssertionError("work was done")

    workdir, params = uninterrupted
    shutil.copytree(workdir / "params", tmp_path / "run" / "params")
    shutil.copy(workdir / "metadata.json", tmp_path / "run")
    before = contents(tmp_path / "run")
    assert fingerprint_of(toy.fit_toy(tmp_path / "run", toy.toy_config(), loss=never)) == fingerprint_of(params)
    with pytest.raises(TrainingDirectoryError, match="holds a finished model of fingerprint 'toy-1', expected 'toy-2'"):
        toy.fit_toy(tmp_path / "run", toy.toy_config(), fingerprint="toy-2")
    assert contents(tmp_path / "run") == before


def test_a_run_of_another_fingerprint_is_refused_and_nothing_changes(uninterrupted):
    workdir, _ = uninterrupted
    before = contents(workdir)
    with pytest.raises(
        TrainingDirectoryError, match=r"of fingerprint 'toy-1', expected 'toy-2'.*use another directory"
    ):
        toy.fit_toy(workdir, toy.toy_config(), fingerprint="toy-2")
    assert contents(workdir) == before


def test_a_finished_model_of_another_shape_is_refused(uninterrupted):
    def wider(key):
        return toy.init_params(key) | {"extra": jnp.zeros(3)}

    with pytest.raises(CheckpointError, match="extra: stored nothing, expected float32"):
        toy.fit_toy(uninterrupted[0], toy.toy_config(), init_params=wider)


def test_an_unwritable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingDirectoryError, match="file/run cannot be written"):
        toy.fit_toy(tmp_path / "file" / "run", toy.toy_config())


@pytest.mark.slow  # the fast suite has eight devices, in test_sharding.py
def test_four_devices_give_the_losses_of_one(tmp_path, cache):
    # At the learning rate of the other tests (0.05) Adam turned the rounding of a sum over devices, 1e-7, into 1.4e-5
    # within 24 steps, while in float64 the two agreed to 1e-15: this compares the devices, not the rounding.
    changes = {"learning_rate": 0.01, "steps": 10, "eval_every": 5}
    toy.fit_toy(tmp_path / "one", toy.toy_config(**changes))
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    report = run_toy(tmp_path / "run", kills=[], changes=changes, environment=flags | cache)
    assert report["devices"] == 4
    ours = read_metrics(tmp_path / "one" / "metrics.jsonl")
    for theirs, record in zip(report["records"], ours, strict=True):
        assert theirs["step"] == record["step"]
        name = "loss" if record["split"] == "train" else "mse"
        assert theirs[name] == pytest.approx(record[name], rel=0, abs=1e-5)
    # What four devices wrote, this process reads with the devices it has.
    loaded, _ = load_params(tmp_path / "run", jax.eval_shape(toy.init_params, jax.random.key(0)))
    assert fingerprint_of(loaded) == report["params"]


def test_sigterm_saves_stops_and_the_run_ends_with_the_same_bits(tmp_path, uninterrupted):
    workdir = tmp_path / "run"
    config = toy.toy_config(checkpoint_every=1000)

    def on_batch(step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match="toy: SIGTERM came, saved at step 8; run the same command"):
        toy.fit_toy(workdir, config, batches=toy.ToyBatches(on_batch))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["8", "files.json"]
    drawn = []
    params = toy.fit_toy(workdir, config, batches=toy.ToyBatches(drawn.append))
    assert drawn[0] == 8, "no step is done twice"
    assert fingerprint_of(params) == fingerprint_of(uninterrupted[1])


def interrupted_at(workdir, stop, config):
    def on_batch(step):
        if step == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        toy.fit_toy(workdir, config, batches=toy.ToyBatches(on_batch))


def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_same_bits(tmp_path, uninterrupted, capsys):
    workdir = tmp_path / "run"
    interrupted_at(workdir, 14, toy.toy_config())  # 10 is the best so far, 12 the newest
    (workdir / "checkpoints" / "12" / "rest" / "_METADATA").unlink()
    drawn = []
    params = toy.fit_toy(workdir, toy.toy_config(), batches=toy.ToyBatches(drawn.append))
    assert drawn[0] == 10
    assert fingerprint_of(params) == fingerprint_of(uninterrupted[1])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("toy: the")]
    assert said == [
        f"toy: the checkpoint of step 12 is damaged ({workdir}/checkpoints/12/rest/_METADATA is missing); "
        "going on from step 10"
    ]


def test_a_run_whose_save_found_the_disk_full_goes_on_from_the_one_before(tmp_path, uninterrupted, monkeypatch):
    workdir, save = tmp_path / "run", TrainCheckpoints.save

    def full(self, step, *rest):
        if step == 12:
            (workdir / "checkpoints" / "12.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
            raise ValueError("RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']")
        save(self, step, *rest)

    monkeypatch.setattr(TrainCheckpoints, "save", full)
    with pytest.raises(ValueError, match="No space left"):
        toy.fit_toy(workdir, toy.toy_config())
    monkeypatch.undo()
    drawn = []
    params = toy.fit_toy(workdir, toy.toy_config(), batches=toy.ToyBatches(drawn.append))
    assert drawn[0] == 10
    assert fingerprint_of(params) == fingerprint_of(uninterrupted[1])


@pytest.mark.parametrize(
    ("log_every", "logged"),
    [(1, "6 steps were logged"), pytest.param(100, "no step was logged", marks=pytest.mark.slow)],
)
def test_a_new_start_after_lost_checkpoints_is_said(tmp_path, capsys, log_every, logged):
    config = toy.toy_config(steps=8, eval_every=8, log_every=log_every)
    toy.fit_toy(tmp_path / "new", config)
    assert "beginning" not in capsys.readouterr().err
    interrupted_at(tmp_path / "run", 7, config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    toy.fit_toy(tmp_path / "run", config)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("toy: training")]
    where = f"{tmp_path}/run/checkpoints"
    assert said == f"toy: training began before ({logged}) but {where} holds no checkpoint; beginning at step 0"


def test_early_stopping_and_the_clock_survive_a_restart(tmp_path):
    figures = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.0, 50: 1.0, 60: 1.0}  # 40 only ties with 20: no improvement
    asked = [0]

    def evaluate(params):
        if asked[0] + 1 == 10:
            time.sleep(1.0)
        return {"mse": figures[asked[0] + 1]}

    def on_batch(step):
        asked[0] = step
        if step == 34 and not interrupted:
            interrupted.append(step)
            raise Interrupted

    interrupted = []
    config = toy.toy_config(steps=60, patience=2)
    changes = {"evaluate": evaluate, "batches": toy.ToyBatches(on_batch)}
    with pytest.raises(Interrupted):
        toy.fit_toy(tmp_path / "run", config, **changes)
    began = time.monotonic()
    toy.fit_toy(tmp_path / "run", config, **changes)
    second = time.monotonic() - began
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["step"], metadata["steps_trained"], metadata["metrics"]) == (20, 40, {"mse": 2.0})
    # The first run slept 1 s and compiled, which is more than the second run spent outside its loop.
    assert metadata["seconds"] > second
