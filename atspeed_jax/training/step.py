"""The state of a training, and one update of the state."""

import functools

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.training import sharding
from atspeed_jax.training.fit_config import FitConfig, FitConfigError
from atspeed_jax.training.optim import OptimConfig, learning_rate_schedule, make_optimizer, moving_average

RESERVED_METRICS = ("loss", "grad_norm", "learning_rate")


def initializer(init_params, config: FitConfig, mesh, frozen=None):
    """Compiles what makes the state before the first update.

    Args:
      init_params, frozen: see `TrainingTask`.
      mesh: the devices. The state is created on them: none ever holds more than its
        part.

    Returns:
      () -> {"params", "opt_state", "step", "key"}: the parameters that are evaluated
      and kept, the state of the optimizer, the updates done, the random key. With
      config.optim.average also "trained": the parameters that updates change, of which
      "params" is the moving average.
    """

    def init(*frozen):
        init_key, step_key = jax.random.split(jax.random.key(config.seed))
        # astype drops weak types. The first update would drop them too, and the second
        # update would be compiled again.
        params = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), init_params(init_key, *frozen))
        opt_state = make_optimizer(config.optim).init(params)
        state = {"params": params, "opt_state": opt_state, "step": jnp.zeros((), jnp.int32), "key": step_key}
        return {**state, "trained": params} if config.optim.average else state

    rest = () if frozen is None else (frozen,)
    placement = sharding.tree_shardings(jax.eval_shape(init, *rest), mesh)
    return functools.partial(jax.jit(init, out_shardings=placement), *rest)


def make_train_step(loss, optim: OptimConfig, mesh, frozen=None, accumulate: int = 1):
    """Compiles one update.

    Args:
      loss, frozen: see `TrainingTask`.
      accumulate: parts that a batch is read in, one after the other. Their means are
        weighted by the loss's metric "weight", which is not reported, or equally where
        the loss has no such metric.

    Returns:
      (state, batch) -> (state, metrics). The given state is donated, frozen is not.

    Raises:
      FitConfigError: while traced, if the loss returns a metric that fit reports
        itself.
    """
    optimizer, schedule = make_optimizer(optim), learning_rate_schedule(optim)

    def train_step(state, batch, *frozen):
        key = jax.random.fold_in(state["key"], state["step"])
        trained = state["trained" if optim.average else "params"]
        with sharding.logical_rules(mesh):
            value, metrics, grads = _gradients(loss, trained, batch, key, state["step"], frozen, accumulate)
        taken = sorted(set(metrics) & set(RESERVED_METRICS))
        if taken:
            raise FitConfigError(f"the loss returns metrics named {taken}, which fit reports itself; rename them")
        updates, opt_state = optimizer.update(grads, state["opt_state"], trained)
        metrics = {
            **metrics,
            "loss": value,
            "grad_norm": optax.tree.norm(grads),  # before clipping
            "learning_rate": schedule(state["step"]),
        }
        trained = optax.apply_updates(trained, updates)
        new = {"params": trained, "opt_state": opt_state, "step": state["step"] + 1, "key": state["key"]}
        if optim.average:
            params = moving_average(state["params"], trained, state["step"], optim.average)
            new |= {"params": params, "trained": trained}
        return jax.lax.with_sharding_constraint(new, sharding.tree_shardings(new, mesh)), metrics

    jitted = jax.jit(train_step, donate_argnums=0)
    return jitted if frozen is None else lambda state, batch: jitted(state, batch, frozen)


def _gradients(loss, params, batch, key, step, frozen: tuple, parts: int):
    """(loss, metrics, gradients) of a batch that is read in `parts` parts.

    A part takes every parts-th row, so that no row leaves its device.
    """
    gradients = jax.value_and_grad(loss, has_aux=True)

    def of(rows, key):
        (value, metrics), grads = gradients(params, rows | {"step": step}, key, *frozen)
        weight = metrics.get("weight", 1.0)
        return weight, (value, {name: x for name, x in metrics.items() if name != "weight"}, grads)

    if parts == 1:
        return of(batch, key)[1]
    batch = {name: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()}

    def add(total, part):
        number, rows = part
        weight, found = of(rows, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, (weight, jax.tree.map(lambda x: weight * x, found))), None

    first = jax.eval_shape(of, {name: x[0] for name, x in batch.items()}, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), first)
    (weight, total), _ = jax.lax.scan(add, zeros, (jnp.arange(parts), batch))
    return jax.tree.map(lambda x: x / jnp.maximum(weight, 1), total)
