"""AdamW with linear warm-up, cosine decay and gradient clipping; the moving average of the parameters."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax


class OptimConfigError(ValueError):
    """An optimizer setting outside its range."""


@dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimizer.

    learning_rate is the peak, reached after warmup_steps; steps is the length of the whole schedule, at whose end the
    learning rate is 0. clip_norm bounds the global norm of the gradient. b1, b2 are AdamW's decay rates. average is the
    decay of the moving average of the parameters (`moving_average`), 0 for none.

    Raises OptimConfigError on a value outside its range.
    """

    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    b1: float
    b2: float
    average: float
    steps: int

    def __post_init__(self):
        allowed = {
            "learning_rate": (0 < self.learning_rate < math.inf, "a positive number"),
            "steps": (self.steps >= 1, "at least 1"),
            "warmup_steps": (0 <= self.warmup_steps < self.steps, f"from 0 to steps - 1 = {self.steps - 1}"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or a positive number"),
            "clip_norm": (self.clip_norm > 0, "a positive number (math.inf: never clip)"),
            "b1": (0 <= self.b1 < 1, "in [0, 1)"),
            "b2": (0 <= self.b2 < 1, "in [0, 1)"),
            "average": (0 <= self.average < 1, "in [0, 1), 0 for no moving average"),
        }
        for name, (fine, expected) in allowed.items():
            if not fine:
                raise OptimConfigError(f"OptimConfig.{name} = {getattr(self, name)!r}, expected {expected}")


def learning_rate_schedule(config: OptimConfig) -> optax.Schedule:
    """Update count -> learning rate: linear up to the peak at warmup_steps, then cosine down to 0 at steps.

    The first update has learning_rate / (warmup_steps + 1), not 0, so that it is not wasted.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (config.warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
    )


def decays(path, leaf) -> bool:
    """Whether weight decay applies to the leaf at this tree path: matrices only.

    True for leaves of two or more dimensions, unless the path contains "norm" or "bias". The number of dimensions
    alone does not tell: layers are stacked, so a norm's scale is [layers, D].
    """
    name = jax.tree_util.keystr(path).lower()
    return leaf.ndim >= 2 and "norm" not in name and "bias" not in name


def decay_mask(params):
    """Tree of bools like `params`: where weight decay applies."""
    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with the schedule above, decaying matrices only."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    )


def moving_average(average, params, step, decay: float):
    """The exponential moving average of the parameters after update number `step` (0, 1, ...): a tree like `params`.

    Its decay grows as (1 + step) / (10 + step) up to `decay`, so that it forgets the first, random parameters.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, average, 1 - decay)
