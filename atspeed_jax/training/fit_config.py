"""Settings of the training loop (`training.train.fit`)."""

from dataclasses import dataclass

from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.utils.ranges import BatchSize, Patience, Seed, Updates, check_ranges


class FitConfigError(ValueError):
    """Settings of the training loop that do not go together."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of the loop, all counted in steps (updates) except patience.

    patience: evaluations in a row without improvement after which training stops; 0 never stops early.
    seed: of the initial parameters and of the keys given to the loss. accumulate: parts that a batch is read in, one
    after the other, for the memory of one (`train.make_train_step`).

    Raises RangeError on a value outside its range, FitConfigError if the loop goes on where the learning rate is 0.
    """

    optim: OptimConfig
    steps: Updates
    eval_every: Updates
    patience: Patience
    checkpoint_every: Updates
    log_every: Updates
    seed: Seed
    accumulate: BatchSize = 1

    def __post_init__(self):
        check_ranges(self)
        if self.steps > self.optim.steps:
            raise FitConfigError(
                f"FitConfig.steps = {self.steps} goes beyond OptimConfig.steps = {self.optim.steps}, where the "
                "learning rate is 0; make OptimConfig.steps at least as large"
            )
