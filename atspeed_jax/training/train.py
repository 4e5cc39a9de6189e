"""The training loop: any parameters, any loss, resumable to the same bits."""

import contextlib
import functools
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from atspeed_jax.training import sharding
from atspeed_jax.training.checkpoint import (
    check_never_finished,
    fingerprint_of,
    is_finished,
    load_params,
    save_params,
)
from atspeed_jax.training.directory import CHECKPOINTS_DIR, check_directory, claimed_directory
from atspeed_jax.training.fit_config import FitConfig, FitConfigError
from atspeed_jax.training.metrics_log import MetricsLog, NoLog, read_metrics
from atspeed_jax.training.preemption import Preempted, sigterm_asks
from atspeed_jax.training.speed import Profile, StepTimes, flops_per_token
from atspeed_jax.training.step import initializer, make_train_step
from atspeed_jax.training.task import TrainingTask
from atspeed_jax.training.train_checkpoints import TrainCheckpoints
from atspeed_jax.utils.distributed import agreed, is_writer


class TrainingDiverged(RuntimeError):
    """The loss, the gradient or the monitored figure is not finite."""


@dataclass
class Progress:
    """What a restart needs besides arrays.

    Attributes:
      best_step, best_metrics: the best evaluation so far.
      evaluations_without_improvement: evaluations since then.
      seconds: wall time of training so far.
    """

    best_step: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    evaluations_without_improvement: int = 0
    seconds: float = 0.0

    def improves(self, task: TrainingTask, figures: dict[str, float]) -> bool:
        """Whether the figures of an evaluation are better than the best so far."""
        if self.best_step is None:
            return True
        return task.improves(figures[task.monitor], self.best_metrics[task.monitor])


@dataclass(frozen=True, eq=False)
class _Training:
    """What stays fixed during one call of fit."""

    task: TrainingTask
    config: FitConfig
    directory: Path
    mesh: jax.sharding.Mesh
    profile: Profile


def fit(
    task: TrainingTask,
    config: FitConfig,
    directory,
    mesh: jax.sharding.Mesh,
    *,
    profile_steps: tuple[int, int] | None = None,
    on_begin: Callable[[], object] = lambda: None,
):
    """Trains, and returns the parameters of the best evaluation.

    The training can be killed at any moment and called again with the same arguments.
    It resumes from its last checkpoint and ends with the same bits (on the same machine
    and device count; on a GPU the operations themselves must be deterministic:
    XLA_FLAGS=--xla_gpu_deterministic_ops=true). A damaged checkpoint is passed over for
    the one before, with a message. If all checkpoints are damaged, that is an error and
    never a new start. If training began earlier and no checkpoint is left, training
    begins at step 0, with a message. A finished directory is read without work: it
    holds params/ and metadata.json, see directory.py. The wall time in metadata.json
    counts compilation and evaluation, but not steps repeated after a kill. The speed of
    training is logged in directory/speed.

    Args:
      task: what is trained, and by which figure parameters are kept.
      config: settings of the loop. With config.optim.average the parameters evaluated,
        kept and returned are the moving average of the trained ones. Evaluation runs
        every eval_every steps and after the last one.
      directory: directory of this training alone.
      mesh: the devices.
      profile_steps: first and last step, counted from 1, to trace in directory/profile.
      on_begin: see `claimed_directory`.

    Returns:
      the parameters, placed on the mesh as `sharding.tree_shardings` says.

    Raises:
      TrainingDirectoryError: directory is unwritable, foreign, in use, or of another
        fingerprint.
      CheckpointError: a checkpoint is damaged.
      ShardingError: a batch cannot be split over the devices.
      FitConfigError: settings do not fit together.
      TrainingDiverged: loss or gradient is not finite; the batch is saved in directory.
      Preempted: SIGTERM came; the state is saved.
    """
    directory = Path(directory).absolute()
    check_directory(directory, task.fingerprint)
    init = initializer(task.init_params, config, mesh, task.frozen)
    abstract = sharding.abstract_on(jax.eval_shape(init), mesh)
    finished = functools.partial(is_finished, directory)
    if not agreed(finished):
        claim = claimed_directory(directory, task.name, task.fingerprint, on_begin)
        with claim if is_writer() else contextlib.nullcontext():
            if not agreed(finished):  # another process may have finished it in between
                _train(_Training(task, config, directory, mesh, Profile(directory, profile_steps)), init, abstract)
    if is_writer():
        shutil.rmtree(directory / CHECKPOINTS_DIR, ignore_errors=True)
    return load_params(directory, abstract["params"], fingerprint=task.fingerprint)[0]


def _train(training: _Training, init, abstract) -> None:
    """Trains from the newest checkpoint or the start; stores the best parameters."""
    with TrainCheckpoints(training.directory / CHECKPOINTS_DIR) as checkpoints:
        found = checkpoints.resume(abstract, functools.partial(_say, training))
        if found is None:
            check_never_finished(training.directory)
            step, progress, state = 0, Progress(), init()
            _say_if_begun(training)
        else:
            step, progress, state = found[0], Progress(**found[1]), found[2]
        if missed := training.profile.missed(step, training.config.steps):
            _say(training, missed)
        make_log = MetricsLog if is_writer() else NoLog
        logs = make_log(training.directory, step), make_log(training.directory / "speed", step)
        with logs[0], logs[1], sigterm_asks() as stops:
            step = _loop(training, state, step, progress, checkpoints, logs, stops)
        assert progress.best_step is not None, "the last update is evaluated"
        best = checkpoints.restore_params(progress.best_step, abstract["params"])
    metadata = {
        "name": training.task.name,
        "fingerprint": training.task.fingerprint,
        "params_fingerprint": fingerprint_of(best),
        "step": progress.best_step,
        "monitor": training.task.monitor,
        "mode": training.task.mode,
        "metrics": progress.best_metrics,
        "steps_trained": step,
        "seconds": round(progress.seconds, 3),
    }
    save_params(training.directory, best, metadata)


def _loop(training: _Training, state, step, progress: Progress, checkpoints: TrainCheckpoints, logs, stops) -> int:
    """Updates until the last step or early stopping. Changes `progress`.

    Args:
      logs: the log of the metrics and the log of the speed.
      stops: () -> whether the process has to end after the update under way.

    Returns:
      the number of updates done.

    Raises:
      Preempted: the process has to end, and the state is saved.
    """
    config, (log, speed_log) = training.config, logs
    times = StepTimes(
        training.mesh.devices.flat, flops_per_token(state["params"], training.task.frozen, training.task.frozen_flops)
    )
    train_step = make_train_step(
        training.task.loss, config.optim, training.mesh, training.task.frozen, config.accumulate
    )
    began = time.monotonic() - progress.seconds
    interval = 0.5 if sys.stderr.isatty() else 30.0
    shown = {"mininterval": interval, "disable": not is_writer()}
    with tqdm(total=config.steps, initial=step, desc=training.task.name, unit="step", **shown) as bar:
        pending = None
        while step < config.steps and not _exhausted(config, progress):
            training.profile.before(step + 1)
            with times.of("data"):
                host_batch = training.task.batches[step]
                batch = sharding.shard_own_rows(host_batch, training.mesh)
            state, metrics = train_step(state, batch)
            step += 1
            training.profile.after(step, metrics)
            times.count(batch["tokens"].size if "tokens" in batch else 0)
            # Metrics of the step before: the device already works on this one.
            _record(training, pending, log, bar)
            pending = (step, host_batch, metrics)
            if step % config.log_every == 0:
                speed_log.write(step, "speed", times.figures())
            evaluates, stopped = step % config.eval_every == 0 or step == config.steps, stops()
            if not evaluates and not stopped and step % config.checkpoint_every != 0:
                continue
            # What is evaluated or saved has been found finite, and its log is complete.
            _record(training, pending, log, bar)
            pending = None
            if evaluates:
                with times.of("evaluation"):
                    _evaluate(training, state["params"], step, progress, log)
            if stopped or step % config.checkpoint_every == 0 or progress.best_step == step:
                progress.seconds = time.monotonic() - began
                with times.of("checkpoint"):
                    checkpoints.save(step, state, asdict(progress), progress.best_step)
            if stopped:
                raise Preempted(
                    f"{training.task.name}: SIGTERM came, saved at step {step}; run the same command to go on"
                )
        progress.seconds = time.monotonic() - began
    training.profile.stop()
    return step


def _say(training: _Training, text: str) -> None:
    if is_writer():
        print(f"{training.task.name}: {text}", file=sys.stderr)


def _say_if_begun(training: _Training) -> None:
    """Says that the steps of an earlier start are lost: no checkpoint is left."""
    log = training.directory / "metrics.jsonl"  # made when training begins, before the first record
    if log.exists():
        records = read_metrics(log)
        logged = f"{records[-1]['step']} steps were logged" if records else "no step was logged"
        where = training.directory / CHECKPOINTS_DIR
        _say(training, f"training began before ({logged}) but {where} holds no checkpoint; beginning at step 0")


def _exhausted(config: FitConfig, progress: Progress) -> bool:
    return 0 < config.patience <= progress.evaluations_without_improvement


def _record(training: _Training, pending, log: MetricsLog, bar) -> None:
    """Waits for a step, checks that its figures are finite, shows and logs them."""
    if pending is None:
        return
    step, host_batch, metrics = pending
    shown = {name: float(metrics[name]) for name in ("loss", "grad_norm")}
    bad = [f"{name} = {value}" for name, value in shown.items() if not math.isfinite(value)]
    if bad:
        path = training.directory / f"diverged_batch_{step - 1}.npz"
        if is_writer():
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in host_batch.items()}
            np.savez(path, **arrays)
        raise TrainingDiverged(
            f"{training.task.name}: {' and '.join(bad)} at step {step}, on batch {step - 1} (saved as {path}); the "
            "last good checkpoint is untouched. Lower the learning rate, or look at the batch"
        )
    bar.update(step - bar.n)
    bar.set_postfix(loss=f"{shown['loss']:.4f}", refresh=False)
    if step % training.config.log_every == 0:
        log.write(step, "train", {name: float(value) for name, value in metrics.items()})


def _evaluate(training: _Training, params, step: int, progress: Progress, log: MetricsLog) -> None:
    """Evaluates, logs the figures, and updates early stopping in `progress`."""
    task = training.task
    figures = {name: float(value) for name, value in task.evaluate(params).items()}
    if task.monitor not in figures:
        raise FitConfigError(f"monitor = {task.monitor!r}, expected one of what evaluate returns: {sorted(figures)}")
    if not math.isfinite(figures[task.monitor]):
        raise TrainingDiverged(
            f"{task.name}: {task.monitor} = {figures[task.monitor]} in the evaluation at step {step}"
        )
    log.write(step, "valid", figures)
    if progress.improves(task, figures):
        progress.best_step, progress.best_metrics = step, figures
        progress.evaluations_without_improvement = 0
    else:
        progress.evaluations_without_improvement += 1
