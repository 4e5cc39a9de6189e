"""The training loop: any parameters, any loss, resumable at any moment to the same bits."""

import contextlib
import functools
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from atspeed_jax.training import sharding
from atspeed_jax.training.checkpoint import (
    CHECKPOINTS_DIR,
    check_never_finished,
    fingerprint_of,
    is_finished,
    load_params,
    save_params,
)
from atspeed_jax.training.fit_config import FitConfig, FitConfigError
from atspeed_jax.training.metrics_log import MetricsLog, NoLog, read_metrics
from atspeed_jax.training.preemption import Preempted, sigterm_asks
from atspeed_jax.training.speed import Profile, StepTimes, flops_per_token
from atspeed_jax.training.step import initialiser, make_train_step
from atspeed_jax.training.train_checkpoints import TrainCheckpoints
from atspeed_jax.training.workdir import check_workdir, claimed_workdir
from atspeed_jax.utils.distributed import agreed, is_writer


class TrainingDiverged(RuntimeError):
    """The loss, the gradient or the monitored figure is not finite."""


@dataclass
class Progress:
    """What must survive a restart besides arrays: early stopping and the time spent."""

    best_step: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    evaluations_without_improvement: int = 0
    seconds: float = 0.0

    def improves(self, value: float, monitor: str, mode: str) -> bool:
        """Whether `value` is strictly better than the best so far."""
        if self.best_step is None:
            return True
        best = self.best_metrics[monitor]
        return value < best if mode == "min" else value > best


@dataclass(frozen=True)
class _Run:
    """What stays fixed during one call of fit."""

    name: str
    workdir: Path
    config: FitConfig
    fingerprint: str
    loss: Callable
    batches: Any
    evaluate: Callable
    monitor: str
    mode: str
    mesh: jax.sharding.Mesh
    frozen: Any
    frozen_flops: float | None
    profile: Profile


def fit(
    *,
    name: str,
    workdir,
    config: FitConfig,
    fingerprint: str,
    init_params: Callable[[jax.Array], Any],
    loss: Callable[[Any, Mapping[str, jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array]]],
    batches,
    evaluate: Callable[[Any], dict[str, float]],
    monitor: str,
    mode: str,
    mesh: jax.sharding.Mesh,
    frozen=None,
    frozen_flops: float | None = None,
    profile_steps: tuple[int, int] | None = None,
    begins: Callable[[], object] = lambda: None,
):
    """Train, and return the parameters of the best evaluation, placed on the mesh as `sharding.tree_shardings` says.

    With config.optim.average the parameters evaluated, kept and returned are the moving average of the trained ones.
    name labels the progress bar. init_params(key) gives the parameters (traced under jit). loss(params, batch, key)
    gives the scalar to minimise and a flat dict of scalars to log; it is traced once per batch shape, its key is
    fold_in(key of the seed, updates done), and the batch it gets has one more entry, "step", the updates done.
    batches[n] is the dict of arrays [B, ...] of update n = 0, 1, ..., a function of n alone; of several processes each
    gives its own rows (`sharding.own_rows`). evaluate(params) runs every eval_every steps and after the last one; its
    figure `monitor` is minimised or maximised by `mode` ("min" or "max"), and a tie is no improvement. frozen: arrays
    that are read but not trained; where there are any, init_params and loss take them as one more argument.
    frozen_flops: of a frozen array's entry per token, 4 for an adapter's base; None where that is no measure of the
    work, and MFU is left out of the log. profile_steps: first and last step, from 1, of which a trace is kept in
    workdir/profile. How fast it trains is logged in workdir/speed. begins: see `claimed_workdir`.

    The run can be killed at any moment and called again with the same arguments: it resumes from its last checkpoint
    and ends with the same bits (same machine and device count; on a GPU the operations themselves must be
    deterministic, XLA_FLAGS=--xla_gpu_deterministic_ops=true). A damaged checkpoint is passed over for the one before,
    which is said; where none is whole, that is an error, never a new start. Where training began and there is no
    checkpoint at all, it begins at step 0, which is said. A finished workdir is read back without work: it holds
    params/ and metadata.json, see workdir.py. fingerprint identifies configuration and data. The wall time in
    metadata.json counts compilation and evaluation, not what a kill made to be done again.

    Raises WorkdirError (unwritable, foreign, in use, or of another fingerprint), CheckpointError (damaged),
    ShardingError (batch not divisible over the devices), FitConfigError, TrainingDiverged (non-finite loss or gradient;
    its batch is saved in workdir), Preempted (SIGTERM came: the state is saved).
    """
    if mode not in ("min", "max"):
        raise FitConfigError(f"mode = {mode!r}, expected 'min' or 'max'")
    workdir = Path(workdir).absolute()
    check_workdir(workdir, fingerprint)
    init = initialiser(init_params, config, mesh, frozen)
    abstract = sharding.abstract_on(jax.eval_shape(init), mesh)
    finished = functools.partial(is_finished, workdir)
    if not agreed(finished):
        with claimed_workdir(workdir, name, fingerprint, begins) if is_writer() else contextlib.nullcontext():
            if not agreed(finished):  # another process may have finished it in between
                what = name, workdir, config, fingerprint, loss, batches, evaluate, monitor, mode, mesh
                run = _Run(*what, frozen, frozen_flops, Profile(workdir, profile_steps))
                _train(run, init, abstract)
    if is_writer():
        shutil.rmtree(workdir / CHECKPOINTS_DIR, ignore_errors=True)
    return load_params(workdir, abstract["params"], fingerprint=fingerprint)[0]


def _train(run: _Run, init, abstract) -> None:
    """Train from the newest checkpoint, or from the start, to the end; leaves the best parameters in the workdir."""
    with TrainCheckpoints(run.workdir / CHECKPOINTS_DIR) as checkpoints:
        found = checkpoints.resume(abstract, functools.partial(_say, run))
        if found is None:
            check_never_finished(run.workdir)
            step, progress, state = 0, Progress(), init()
            _say_if_begun(run)
        else:
            step, progress, state = found[0], Progress(**found[1]), found[2]
        make_log = MetricsLog if is_writer() else NoLog
        logs = make_log(run.workdir, step), make_log(run.workdir / "speed", step)
        with logs[0], logs[1], sigterm_asks() as stops:
            step = _loop(run, state, step, progress, checkpoints, logs, stops)
        best = checkpoints.restore_params(progress.best_step, abstract["params"])
    metadata = {
        "name": run.name,
        "fingerprint": run.fingerprint,
        "params_fingerprint": fingerprint_of(best),
        "step": progress.best_step,
        "monitor": run.monitor,
        "mode": run.mode,
        "metrics": progress.best_metrics,
        "steps_trained": step,
        "seconds": round(progress.seconds, 3),
    }
    save_params(run.workdir, best, metadata)


def _loop(run: _Run, state, step, progress: Progress, checkpoints: TrainCheckpoints, logs, stops) -> int:
    """Update until the last step or early stopping; returns the number of updates done. Changes `progress`.

    logs: of what is computed, and of how fast. stops() says that the process is to end: saves after the update
    under way, and raises Preempted.
    """
    config, (log, speed_log) = run.config, logs
    times = StepTimes(run.mesh.devices.flat, flops_per_token(state["params"], run.frozen, run.frozen_flops))
    train_step = make_train_step(run.loss, config.optim, run.mesh, run.frozen, config.accumulate)
    began = time.monotonic() - progress.seconds
    interval = 0.5 if sys.stderr.isatty() else 30.0
    shown = {"mininterval": interval, "disable": not is_writer()}
    with tqdm(total=config.steps, initial=step, desc=run.name, unit="step", **shown) as bar:
        pending = None
        while step < config.steps and not _exhausted(config, progress):
            run.profile.before(step + 1)
            with times.of("data"):
                host_batch = run.batches[step]
                batch = sharding.shard_own_rows(host_batch, run.mesh)
            state, metrics = train_step(state, batch)
            step += 1
            run.profile.after(step, metrics)
            times.count(batch["tokens"].size if "tokens" in batch else 0)
            # Read the metrics of the step before: the device already works on this one.
            _record(run, pending, log, bar)
            pending = (step, host_batch, metrics)
            if step % config.log_every == 0:
                speed_log.write(step, "speed", times.figures())
            evaluates, stopped = step % config.eval_every == 0 or step == config.steps, stops()
            if not evaluates and not stopped and step % config.checkpoint_every != 0:
                continue
            # Whatever is evaluated or saved has been found finite, and its log is complete.
            _record(run, pending, log, bar)
            pending = None
            if evaluates:
                with times.of("evaluation"):
                    _evaluate(run, state["params"], step, progress, log)
            if stopped or step % config.checkpoint_every == 0 or progress.best_step == step:
                progress.seconds = time.monotonic() - began
                with times.of("checkpoint"):
                    checkpoints.save(step, state, asdict(progress), progress.best_step)
            if stopped:
                raise Preempted(f"{run.name}: SIGTERM came, saved at step {step}; run the same command to go on")
        progress.seconds = time.monotonic() - began
    run.profile.stop()
    return step


def _say(run: _Run, text: str) -> None:
    if is_writer():
        print(f"{run.name}: {text}", file=sys.stderr)


def _say_if_begun(run: _Run) -> None:
    """Says that the steps of an earlier start are lost: it saved no checkpoint, or they were removed."""
    log = run.workdir / "metrics.jsonl"  # made when training begins, before the first record
    if log.exists():
        records = read_metrics(log)
        logged = f"{records[-1]['step']} steps were logged" if records else "no step was logged"
        where = run.workdir / CHECKPOINTS_DIR
        _say(run, f"training began before ({logged}) but {where} holds no checkpoint; beginning at step 0")


def _exhausted(config: FitConfig, progress: Progress) -> bool:
    return 0 < config.patience <= progress.evaluations_without_improvement


def _record(run: _Run, pending, log: MetricsLog, bar) -> None:
    """Wait for a dispatched step, check that it was finite, show it, and log it if its turn has come."""
    if pending is None:
        return
    step, host_batch, metrics = pending
    shown = {name: float(metrics[name]) for name in ("loss", "grad_norm")}
    bad = [f"{name} = {value}" for name, value in shown.items() if not math.isfinite(value)]
    if bad:
        path = run.workdir / f"diverged_batch_{step - 1}.npz"
        if is_writer():
            np.savez(path, **{name: np.asarray(value) for name, value in host_batch.items()})
        raise TrainingDiverged(
            f"{run.name}: {' and '.join(bad)} at step {step}, on batch {step - 1} (saved as {path}); the last good "
            "checkpoint is untouched. Lower the learning rate or look at the batch"
        )
    bar.update(step - bar.n)
    bar.set_postfix(loss=f"{shown['loss']:.4f}", refresh=False)
    if step % run.config.log_every == 0:
        log.write(step, "train", {name: float(value) for name, value in metrics.items()})


def _evaluate(run: _Run, params, step: int, progress: Progress, log: MetricsLog) -> None:
    """Evaluate, log, and update early stopping in `progress`."""
    figures = {name: float(value) for name, value in run.evaluate(params).items()}
    if run.monitor not in figures:
        raise FitConfigError(f"monitor = {run.monitor!r}, expected one of what evaluate returns: {sorted(figures)}")
    if not math.isfinite(figures[run.monitor]):
        raise TrainingDiverged(f"{run.name}: {run.monitor} = {figures[run.monitor]} in the evaluation at step {step}")
    log.write(step, "valid", figures)
    if progress.improves(figures[run.monitor], run.monitor, run.mode):
        progress.best_step, progress.best_metrics = step, figures
        progress.evaluations_without_improvement = 0
    else:
        progress.evaluations_without_improvement += 1
