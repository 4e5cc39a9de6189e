"""Settings of the training loop (`training.train.fit`)."""

from dataclasses import dataclass

from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.utils.ranges import BatchSize, Patience, Seed, Updates, check_ranges


class FitConfigError(ValueError):
    """Settings of the training loop that do not go together."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Settings of the loop, whatever the length of the training.

    Attributes:
      patience: evaluations in a row without improvement after which training stops; 0
        never stops early.
      checkpoint_every: updates between two checkpoints.
      log_every: updates between two records of the log.
      seed: of the initial parameters and of the keys given to the loss.
      accumulate: parts that a batch is read in, one after the other, so that it needs
        the memory of one part (`step.make_train_step`).
    """

    patience: Patience
    checkpoint_every: Updates
    log_every: Updates
    seed: Seed
    accumulate: BatchSize = 1


@dataclass(frozen=True, kw_only=True)
class FitConfig(LoopSettings):
    """Settings of the loop, with the length of the training.

    Attributes:
      optim: the optimizer.
      steps: updates of the training.
      eval_every: updates between two evaluations.

    Raises:
      RangeError: a value lies outside its range.
      FitConfigError: training would go on where the learning rate is 0.
    """

    optim: OptimConfig
    steps: Updates
    eval_every: Updates

    def __post_init__(self):
        check_ranges(self)
        if self.steps > self.optim.steps:
            raise FitConfigError(
                f"FitConfig.steps = {self.steps} goes beyond OptimConfig.steps = {self.optim.steps}, where the "
                "learning rate is 0; make OptimConfig.steps at least as large"
            )
