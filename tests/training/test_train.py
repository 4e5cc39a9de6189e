"""The loop on a toy regression (toy.py): killed, resumed, stopped early, diverging, on one device and on four."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from atspeed_jax.training import sharding, train
from atspeed_jax.training.checkpoint import CheckpointError, TrainCheckpoints, fingerprint_of, load_params
from atspeed_jax.training.metrics_log import MetricsLog, read_metrics
from atspeed_jax.training.optim import make_optimizer
from atspeed_jax.training.train import FitConfigError, TrainingDiverged
from atspeed_jax.training.workdir import WorkdirError, claimed_workdir
from tests.training import toy

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).with_name("toy.py")


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def on_batch(asked):
        if asked == step:
            raise Interrupted

    return toy.ToyBatches(on_batch)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A compilation cache for this module and the processes it starts: compiling is most of their time.

    Who resumes compiles anew unless the user has such a cache; the slow test of random kills does without.
    """
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    values = (str(tmp_path_factory.mktemp("cache")), 0.0)
    for name, value in zip(names, values, strict=True):
        jax.config.update(name, value)
    yield {name.upper(): str(value) for name, value in zip(names, values, strict=True)}
    for name, value in before.items():
        jax.config.update(name, value)


def run_toy(workdir, *, kills, changes, environment):
    result = subprocess.run(
        [sys.executable, str(TOY), str(workdir), json.dumps(kills), json.dumps(changes)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def without_time(records):
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    """(workdir, params) of a run that nobody killed; its best evaluation is not its last."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    params = toy.fit_toy(workdir, toy.toy_config())
    return workdir, params


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


def test_the_best_parameters_equal_a_loop_written_out(uninterrupted):
    config = toy.toy_config()
    optimizer = make_optimizer(config.optim)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    params = toy.init_params(init_key)
    state = optimizer.init(params)
    figures, kept = {}, {}

    @jax.jit
    def update(params, state, batch, key):
        grads = jax.grad(lambda params: toy.loss(params, batch, key)[0])(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(config.steps):
        params, state = update(params, state, toy.ToyBatches()[step], jax.random.fold_in(step_key, step))
        if (step + 1) % config.eval_every == 0:
            figures[step + 1], kept[step + 1] = toy.evaluate(params)["mse"], params
    best = min(figures, key=figures.get)
    metadata = json.loads((uninterrupted[0] / "metadata.json").read_text())
    assert best == metadata["step"] < config.steps
    assert metadata["metrics"]["mse"] == pytest.approx(figures[best], rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), uninterrupted[1], kept[best])


def test_the_log_has_every_step_once_and_every_evaluation(uninterrupted):
    records = read_metrics(uninterrupted[0] / "metrics.jsonl")
    assert [record["step"] for record in records if record["split"] == "train"] == list(range(1, 41))
    assert [record["step"] for record in records if record["split"] == "valid"] == [10, 20, 30, 40]
    named = {"step", "split", "time", "loss", "error_max", "grad_norm", "learning_rate"}
    assert all(set(record) == named for record in records if record["split"] == "train")
    assert records[-1]["negative"] == -records[-1]["mse"]


def test_the_metadata_tells_what_was_trained(uninterrupted):
    workdir, params = uninterrupted
    metadata = json.loads((workdir / "metadata.json").read_text())
    seconds = metadata.pop("seconds")
    assert 0 < seconds < 600
    assert metadata.pop("metrics").keys() == {"mse", "negative"}
    assert metadata.pop("step") in (10, 20, 30)
    assert metadata == {
        "name": "toy",
        "fingerprint": "toy-1",
        "params_fingerprint": fingerprint_of(params),
        "monitor": "mse",
        "mode": "min",
        "steps_trained": 40,
    }
    assert not (workdir / "checkpoints").exists()


def test_a_finished_run_is_read_back_without_work(uninterrupted):
    def never(*_):
        raise AssertionError("work was done")

    workdir, params = uninterrupted
    before = contents(workdir)
    with claimed_workdir(workdir, "toy", "toy-1"):  # reading needs no claim, so nobody has to wait
        again = toy.fit_toy(workdir, toy.toy_config(), loss=never, evaluate=never, batches=toy.ToyBatches(never))
    assert fingerprint_of(again) == fingerprint_of(params)
    assert contents(workdir) == before


def test_a_run_of_another_fingerprint_is_refused_and_nothing_changes(uninterrupted):
    workdir, _ = uninterrupted
    before = contents(workdir)
    with pytest.raises(WorkdirError, match="'toy-1', this run has 'toy-2'.*use another workdir"):
        toy.fit_toy(workdir, toy.toy_config(), fingerprint="toy-2")
    assert contents(workdir) == before


def test_a_finished_model_of_another_shape_is_refused(uninterrupted):
    def wider(key):
        return toy.init_params(key) | {"extra": jnp.zeros(3)}

    with pytest.raises(CheckpointError, match="extra: stored nothing, expected float32"):
        toy.fit_toy(uninterrupted[0], toy.toy_config(), init_params=wider)


def test_an_unwritable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="file/run cannot be written"):
        toy.fit_toy(tmp_path / "file" / "run", toy.toy_config())


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


def test_a_batch_that_four_devices_cannot_share_is_refused():
    code = (
        "import numpy as np; from atspeed_jax.training.sharding import *\n"
        "try: shard_batch({'x': np.zeros((6, 2))}, data_mesh())\n"
        "except ShardingError as error: print(error)"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | flags)
    assert "a batch of 6 rows cannot be split evenly over 4 devices" in run.stdout, run.stderr
    assert "a multiple of 4 (such as 8)" in run.stdout


def test_one_compilation_per_batch_shape():
    mesh = sharding.data_mesh()
    config = toy.toy_config()
    state = train._initialiser(lambda key: toy.init_params(key) | {"weak": jnp.full((2, 2), 0.5)}, config, mesh)()
    step = train.make_train_step(toy.loss, config.optim, mesh)
    for number in range(6):
        state, _ = step(state, sharding.shard_batch(toy.ToyBatches()[number], mesh))
    assert step._cache_size() == 2


def test_each_step_gets_its_own_key_and_the_donated_state_is_gone():
    mesh = sharding.data_mesh()
    config = toy.toy_config()
    initial = train._initialiser(toy.init_params, config, mesh)()
    root = jax.random.wrap_key_data(jnp.asarray(jax.random.key_data(initial["key"])).copy())

    def loss(params, batch, key):
        return toy.loss(params, batch, key)[0], {"draw": jax.random.uniform(key)}

    step = train.make_train_step(loss, config.optim, mesh)
    state, draws = initial, []
    for number in range(3):
        state, metrics = step(state, sharding.shard_batch(toy.ToyBatches()[number], mesh))
        draws.append(float(metrics["draw"]))
    assert draws == [float(jax.random.uniform(jax.random.fold_in(root, number))) for number in range(3)]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(initial["params"]))
    assert int(state["step"]) == 3


def test_metrics_are_read_only_after_the_next_step_is_dispatched(tmp_path, monkeypatch):
    events = []

    def recording_step(*arguments):
        step = make_train_step(*arguments)

        def dispatch(state, batch):
            result = step(state, batch)
            events.append(f"dispatched {len([e for e in events if e.startswith('d')]) + 1}")
            return result

        return dispatch

    class RecordingLog(MetricsLog):
        def write(self, step, split, metrics):
            events.append(f"read {step} {split}")
            super().write(step, split, metrics)

    make_train_step = train.make_train_step
    monkeypatch.setattr(train, "make_train_step", recording_step)
    monkeypatch.setattr(train, "MetricsLog", RecordingLog)
    toy.fit_toy(tmp_path / "run", toy.toy_config(steps=8, eval_every=4, checkpoint_every=100))
    assert events == [
        *["dispatched 1", "dispatched 2", "read 1 train", "dispatched 3", "read 2 train", "dispatched 4"],
        *["read 3 train", "read 4 train", "read 4 valid", "dispatched 5", "dispatched 6", "read 5 train"],
        *["dispatched 7", "read 6 train", "dispatched 8", "read 7 train", "read 8 train", "read 8 valid"],
    ]


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


def test_the_highest_figure_wins_in_max_mode(tmp_path):
    config = toy.toy_config(steps=6, eval_every=2)
    seen = []

    def evaluate(params):
        seen.append(fingerprint_of(params))
        return {"recall": [0.1, 0.3, 0.2][len(seen) - 1]}

    best = toy.fit_toy(tmp_path / "run", config, evaluate=evaluate, monitor="recall", mode="max")
    assert fingerprint_of(best) == seen[1]


def test_the_last_step_is_evaluated_and_saved_even_off_the_beat(tmp_path):
    config = toy.toy_config(steps=5, eval_every=100, checkpoint_every=100)
    toy.fit_toy(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "metadata.json").read_text())["step"] == 5


class BrokenBatch(toy.ToyBatches):
    def __getitem__(self, step):
        batch = super().__getitem__(step)
        return batch | {"y": np.full_like(batch["y"], np.inf)} if step == 13 else batch


def test_divergence_names_step_and_batch_and_spares_the_last_good_checkpoint(tmp_path, uninterrupted):
    workdir = tmp_path / "run"
    with pytest.raises(TrainingDiverged, match=r"loss = inf .*at step 14, on batch 13 \(saved as .*batch_13.npz\)"):
        toy.fit_toy(workdir, toy.toy_config(), batches=BrokenBatch())
    with np.load(workdir / "diverged_batch_13.npz", allow_pickle=False) as saved:
        assert set(saved) == {"x", "y"}
        np.testing.assert_array_equal(saved["x"], toy.ToyBatches()[13]["x"])
        assert np.isinf(saved["y"]).all()
    with TrainCheckpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest()[0] == 12
    # With the batch mended, the run goes on from there as if nothing had happened.
    params = toy.fit_toy(workdir, toy.toy_config())
    assert fingerprint_of(params) == fingerprint_of(uninterrupted[1])


def test_a_gradient_that_is_not_finite_stops_too_even_right_before_a_checkpoint(tmp_path):
    def loss(params, batch, key):
        value, metrics = toy.loss(params, batch, key)
        at_zero = jnp.where(batch["x"].shape[1] == 6, 0.0, 1.0)  # the root's slope at 0 is infinite, its value is fine
        return value + jnp.sqrt(at_zero * params["out"]["kernel"][0, 0] ** 2), metrics

    with pytest.raises(TrainingDiverged, match="grad_norm = (nan|inf) at step 2, on batch 1"):
        toy.fit_toy(tmp_path / "run", toy.toy_config(checkpoint_every=2), loss=loss)
    with TrainCheckpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.latest() is None


def test_a_figure_that_is_not_finite_stops(tmp_path):
    with pytest.raises(TrainingDiverged, match="mse = nan in the evaluation at step 10"):
        toy.fit_toy(tmp_path / "run", toy.toy_config(), evaluate=lambda params: {"mse": float("nan")})


def test_a_monitor_that_is_not_measured_is_named(tmp_path):
    with pytest.raises(FitConfigError, match=r"monitor = 'recall', expected one of .*\['mse', 'negative'\]"):
        toy.fit_toy(tmp_path / "run", toy.toy_config(steps=2), monitor="recall")
    with pytest.raises(FitConfigError, match="mode = 'biggest', expected 'min' or 'max'"):
        toy.fit_toy(tmp_path / "run2", toy.toy_config(), mode="biggest")
    assert not (tmp_path / "run2").exists()


def test_a_loss_cannot_take_the_name_of_a_metric_of_the_loop(tmp_path):
    def loss(params, batch, key):
        value, _ = toy.loss(params, batch, key)
        return value, {"grad_norm": value}

    with pytest.raises(FitConfigError, match=r"metrics named \['grad_norm'\].*rename"):
        toy.fit_toy(tmp_path / "run", toy.toy_config(), loss=loss)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("eval_every", 0), ("checkpoint_every", 0), ("log_every", -1), ("patience", -1), ("steps", 61)],
)
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(FitConfigError, match=f"FitConfig.{name} = {value}"):
        dataclasses.replace(toy.toy_config(), **{name: value})
