"""A toy regression with two batch shapes and a random loss; `python toy.py WORKDIR KILLS CONFIG` fits it.

CONFIG is a JSON object of changes to toy_config's arguments.
KILLS is a JSON list of [when, value]: for each, a child process fits in WORKDIR until it kills itself with SIGKILL
    ["batch", n]        as batch n is asked for
    ["file", pattern]   as soon as something in WORKDIR matches the glob pattern (such as a save under way)
    ["seconds", s]      s seconds after fit began to train
Then the process fits to the end and prints a JSON report as its last line.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.training.task import TrainingTask
from atspeed_jax.training.train import fit
from devices import whole_mesh

ROWS = 8


def toy_config(
    steps=40, eval_every=10, patience=0, checkpoint_every=6, log_every=1, seed=3, learning_rate=0.05, average=0.5
):
    # One schedule whatever `steps` is, so that the compiled update is the same.
    optim = OptimConfig(
        learning_rate=learning_rate,
        warmup_steps=5,
        weight_decay=0.1,
        clip_norm=1.0,
        b1=0.9,
        b2=0.99,
        average=average,
        steps=60,
    )
    return FitConfig(
        optim=optim,
        steps=steps,
        eval_every=eval_every,
        patience=patience,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        seed=seed,
    )


class ToyBatches:
    """Batch n is a function of n alone: x [8, 4 or 6], y [8] the sine of the sum of the row of x."""

    def __init__(self, on_batch=None):
        self.on_batch = on_batch

    def __getitem__(self, step):
        if self.on_batch is not None:
            self.on_batch(step)
        rng = np.random.default_rng(step)
        x = rng.normal(size=(ROWS, 4 + 2 * (step % 2))).astype(np.float32)
        return {"x": x, "y": np.sin(x.sum(axis=1))}


def init_params(key):
    values = jax.random.normal(key, (3, 64))
    return {
        "hidden": {"kernel": 0.3 * values[:2], "bias": jnp.zeros(64)},
        "out": {"kernel": 0.1 * values[2:].T},
    }


def loss(params, batch, key):
    total = batch["x"].sum(axis=1, keepdims=True)
    hidden = jnp.concatenate([total, total**2], axis=1) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = jnp.tanh(hidden) * jax.random.bernoulli(key, 0.9, hidden.shape[-1:])
    error = (hidden @ params["out"]["kernel"])[:, 0] - batch["y"]
    return jnp.mean(error**2), {"error_max": jnp.max(jnp.abs(error))}


jitted_loss = jax.jit(loss)


def evaluate(params):
    value, _ = jitted_loss(params, ToyBatches()[10**6], jax.random.key(7))
    return {"mse": float(value), "negative": -float(value)}


def fit_toy(workdir, config, **changes):
    """changes: to the task, and further arguments of fit."""
    fields = {
        "name": "toy",
        "fingerprint": "toy-1",
        "init_params": init_params,
        "loss": loss,
        "batches": ToyBatches(),
        "evaluate": evaluate,
        "monitor": "mse",
        "mode": "min",
    }
    for name in {field.name for field in dataclasses.fields(TrainingTask)} & set(changes):
        fields[name] = changes.pop(name)
    return fit(TrainingTask(**fields), config, workdir, whole_mesh(), **changes)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(workdir, pattern):
    while not any(workdir.glob(pattern)):
        time.sleep(0.0005)
    _die()


def _fit_until_killed(workdir, config, when, value):
    def on_batch(step):
        if when == "batch" and step == value:
            _die()
        if when == "seconds" and on_batch.timer is None:
            on_batch.timer = threading.Timer(value, _die)
            on_batch.timer.start()

    on_batch.timer = None
    if when == "file":
        threading.Thread(target=_watch, args=(workdir, value), daemon=True).start()
    fit_toy(workdir, config, batches=ToyBatches(on_batch))


def _left(workdir):
    """What the killed process left, for the report."""
    return sorted(p.relative_to(workdir).as_posix() for p in [*workdir.glob("*"), *workdir.glob("checkpoints/*")])


def main():
    workdir = Path(sys.argv[1])
    config = toy_config(**json.loads(sys.argv[3]))
    deaths = []
    for when, value in json.loads(sys.argv[2]):
        child = os.fork()  # before JAX starts any thread: importing is most of the time of a run this small
        if child == 0:
            _fit_until_killed(workdir, config, when, value)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        deaths.append({"when": when, "value": value, "status": status, "left": _left(workdir)})
    params = fit_toy(workdir, config)
    records = read_metrics(workdir / "metrics.jsonl")
    report = {
        "deaths": deaths,
        "devices": jax.device_count(),
        "params": fingerprint_of(params),
        "records": [{key: value for key, value in record.items() if key != "time"} for record in records],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
