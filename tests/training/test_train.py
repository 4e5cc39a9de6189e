"""The loop on a toy regression (toy.py): what it computes, logs, stops at and refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from atspeed_jax.training import train
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.fit_config import FitConfigError
from atspeed_jax.training.metrics_log import MetricsLog, read_metrics
from atspeed_jax.training.optim import make_optimizer
from atspeed_jax.training.train import TrainingDiverged
from atspeed_jax.training.train_checkpoints import TrainCheckpoints
from tests.training import toy


def test_the_best_parameters_equal_a_loop_written_out(uninterrupted):
    config = toy.toy_config()
    optimizer = make_optimizer(config.optim)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    params = average = toy.init_params(init_key)
    state = optimizer.init(params)
    figures, kept = {}, {}

    @jax.jit
    def update(params, state, batch, key):
        grads = jax.grad(lambda params: toy.loss(params, batch, key)[0])(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(config.steps):
        params, state = update(params, state, toy.ToyBatches()[step], jax.random.fold_in(step_key, step))
        decay = min(config.optim.average, (1 + step) / (10 + step))
        average = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, average, params)
        if (step + 1) % config.eval_every == 0:
            figures[step + 1], kept[step + 1] = toy.evaluate(average)["mse"], average
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
    assert metadata.pop("files")
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
            if split != "speed":  # the clock's, which waits for no device
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
        assert checkpoints.steps()[-1] == 12
    # With the batch mended, the run goes on from there as if nothing had happened.
    params = toy.fit_toy(workdir, toy.toy_config())
    assert fingerprint_of(params) == fingerprint_of(uninterrupted[1])


def test_a_gradient_that_is_not_finite_stops_too_even_right_before_a_checkpoint(tmp_path):
    def loss(params, batch, key):
        value, metrics = toy.loss(params, batch, key)
        at_zero = jnp.where(batch["x"].shape[1] == 6, 0.0, 1.0)  # the root's slope at 0 is infinite, its value is fine
        return value + jnp.sqrt(at_zero * params["out"]["kernel"][0, 0] ** 2), metrics

    with pytest.raises(TrainingDiverged, match=r"grad_norm = (nan|inf) at step 2, on batch 1"):
        toy.fit_toy(tmp_path / "run", toy.toy_config(checkpoint_every=2), loss=loss)
    with TrainCheckpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == []


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
