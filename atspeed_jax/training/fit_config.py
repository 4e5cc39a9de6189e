"""Settings of the training loop (`training.train.fit`)."""

from dataclasses import dataclass

from atspeed_jax.training.optim import OptimConfig


class FitConfigError(ValueError):
    """A setting of the training loop outside its range."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of the loop, all counted in steps (updates) except patience.

    patience: evaluations in a row without improvement after which training stops; 0 never stops early.
    seed: of the initial parameters and of the keys given to the loss. accumulate: parts that a batch is read in, one
    after the other, for the memory of one (`train.make_train_step`).

    Raises FitConfigError on a value outside its range.
    """

    optim: OptimConfig
    steps: int
    eval_every: int
    patience: int
    checkpoint_every: int
    log_every: int
    seed: int
    accumulate: int = 1

    def __post_init__(self):
        for name in ("steps", "eval_every", "checkpoint_every", "log_every", "accumulate"):
            if getattr(self, name) < 1:
                raise FitConfigError(f"FitConfig.{name} = {getattr(self, name)!r}, expected at least 1")
        if self.patience < 0:
            raise FitConfigError(f"FitConfig.patience = {self.patience!r}, expected 0 (never stop early) or more")
        if self.steps > self.optim.steps:
            raise FitConfigError(
                f"FitConfig.steps = {self.steps} goes beyond OptimConfig.steps = {self.optim.steps}, where the "
                "learning rate is 0; make OptimConfig.steps at least as large"
            )
