"""How fast batches are made, beside how fast training reads them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

import jax
from jax.sharding import Mesh

from atspeed_jax.data.batches import BatchShape, train_batches
from atspeed_jax.data.dataset import load_dataset
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.training import sharding
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.initialization import Initialization
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.step import initializer, make_train_step


def input_speed(run: Run, *, batches: int, steps: int) -> dict[str, float]:
    """Measures the input of the training of a run's target, see `input_row`.

    Args:
      run: one whose data stage is done.
      batches: number of batches made.
      steps: number of steps timed.
    """
    train, history = run.config.train_target, run.config.data.history
    if train is None:
        raise ValueError("the target of this run is not trained (train_target=None); take a run that trains a target")
    start, length = run.assets.target.initialization, run.dataset.catalog.length
    loss, fit_config = training_loss(start.model, length, train.shuffle, start.lora), train.fit(steps)
    shape = BatchShape(history, train.buckets, train.batch_size)

    def make_batches():
        return train_batches(load_dataset(run.workdir / "data"), shape, seed=train.seed)

    return input_row(make_batches, start, loss, fit_config, run.mesh, batches=batches, steps=steps)


def input_row(
    make_batches: Callable,
    start: Initialization,
    loss: Callable,
    config: FitConfig,
    mesh: Mesh,
    *,
    batches: int,
    steps: int,
) -> dict[str, float]:
    """Measures the input of a training on one machine.

    Args:
      make_batches: returns batches as `fit` takes them, from stored data.
      start: how the model is initialized.
      loss: of the training.
      config: of the training.
      mesh: of the training.
      batches: number of batches made, one after another.
      steps: number of steps timed, once their shapes are compiled.

    Returns:
      start_up_s: seconds to the first batch. feed_samples_per_s: speed of making
      batches. step_samples_per_s: speed of the steps. ratio: the first speed by the
      second.
    """
    began = time.perf_counter()
    made = make_batches()
    first = made[0]
    start_up = time.perf_counter() - began
    rows = len(next(iter(first.values())))
    began = time.perf_counter()
    read = [made[number] for number in range(1, 1 + batches)]
    feed = rows * batches / (time.perf_counter() - began)
    state = initializer(start.init, config, mesh, start.frozen)()
    step = make_train_step(loss, config.optim, mesh, start.frozen, config.accumulate)
    for batch in _one_of_each_shape(read):
        state, metrics = step(state, sharding.shard_batch(batch, mesh))
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    for batch in itertools.islice(itertools.cycle(read), steps):
        state, metrics = step(state, sharding.shard_batch(batch, mesh))
    jax.block_until_ready(metrics)
    speed = rows * steps / (time.perf_counter() - began)
    return {
        "start_up_s": start_up, "feed_samples_per_s": feed, "step_samples_per_s": speed, "ratio": feed / speed
    }  # fmt: skip


def _one_of_each_shape(batches: Iterable[dict]) -> list[dict]:
    return list({tuple(x.shape for x in batch.values()): batch for batch in batches}.values())
