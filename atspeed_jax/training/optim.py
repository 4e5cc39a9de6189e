"""AdamW with warm-up, cosine decay and clipping; the moving average of parameters."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.utils.ranges import (
    ClipNorm,
    LearningRate,
    PartialShare,
    Updates,
    Warmup,
    WeightDecay,
    check_ranges,
)


class OptimConfigError(ValueError):
    """Optimizer settings that do not go together."""


@dataclass(frozen=True)
class OptimSettings:
    """Settings of the optimizer, whatever the length of the training.

    Attributes:
      learning_rate: the peak, reached after warmup_steps.
      warmup_steps: updates of the linear warm-up.
      weight_decay: of AdamW, on matrices only (`decays`).
      clip_norm: bound of the global norm of the gradient.
      b1, b2: AdamW's decay rates.
      average: decay of the moving average of the parameters (`moving_average`); 0 for
        none.
    """

    learning_rate: LearningRate
    warmup_steps: Warmup
    weight_decay: WeightDecay
    clip_norm: ClipNorm
    b1: PartialShare
    b2: PartialShare
    average: PartialShare


@dataclass(frozen=True)
class OptimConfig(OptimSettings):
    """Settings of the optimizer with its schedule.

    Attributes:
      steps: updates of the whole schedule, at whose end the learning rate is 0.

    Raises:
      RangeError: a value lies outside its range.
      OptimConfigError: the warm-up is as long as the schedule.
    """

    steps: Updates

    def __post_init__(self):
        check_ranges(self)
        if self.warmup_steps >= self.steps:
            raise OptimConfigError(
                f"OptimConfig.warmup_steps = {self.warmup_steps}, expected less than steps = {self.steps}"
            )


def learning_rate_schedule(config: OptimConfig) -> optax.Schedule:
    """The learning rate by the number of updates done.

    It rises linearly to the peak at warmup_steps, then falls as a cosine to 0 at steps.
    The first update has learning_rate / (warmup_steps + 1): with 0 it would be wasted.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (config.warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
    )


def decays(path, leaf) -> bool:
    """Whether weight decay applies to the leaf at a tree path: to matrices only.

    Returns:
      True for leaves of two or more dimensions, unless the path contains "norm" or
      "bias".
      The number of dimensions alone does not say: layers are stacked, so the scale of a
      norm is [layers, D].
    """
    name = jax.tree_util.keystr(path).lower()
    return leaf.ndim >= 2 and "norm" not in name and "bias" not in name


def decay_mask(params):
    """A tree of bools like `params`: where weight decay applies."""
    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Clips gradients by their global norm, then applies AdamW with `decay_mask`."""
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
    """The exponential moving average of the parameters after an update.

    The decay grows as (1 + step) / (10 + step) up to `decay`, so that the average
    forgets the first, random parameters.

    Args:
      average: the average before the update, a tree like `params`.
      step: number of the update: 0, 1, ...
    """
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, average, 1 - kept)
