"""AdamW with linear warm-up, cosine decay and gradient clipping; the moving average of the parameters."""

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
class OptimConfig:
    """Settings of the optimizer.

    learning_rate is the peak, reached after warmup_steps; steps is the length of the whole schedule, at whose end the
    learning rate is 0. clip_norm bounds the global norm of the gradient. b1, b2 are AdamW's decay rates. average is the
    decay of the moving average of the parameters (`moving_average`), 0 for none.

    Raises RangeError on a value outside its range, OptimConfigError for a warm-up as long as the schedule.
    """

    learning_rate: LearningRate
    warmup_steps: Warmup
    weight_decay: WeightDecay
    clip_norm: ClipNorm
    b1: PartialShare
    b2: PartialShare
    average: PartialShare
    steps: Updates

    def __post_init__(self):
        check_ranges(self)
        if self.warmup_steps >= self.steps:
            raise OptimConfigError(
                f"OptimConfig.warmup_steps = {self.warmup_steps}, expected less than steps = {self.steps}"
            )


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
