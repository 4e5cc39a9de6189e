"""What `train.fit` trains, on what data, and by which figure parameters are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

from atspeed_jax.training.fit_config import FitConfigError


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One training.

    Attributes:
      name: label of messages and of the progress bar.
      fingerprint: hash of the configuration and data that the result depends on.
      init_params: (key) -> initial parameters; traced under jit.
      loss: (params, batch, key) -> (scalar to minimize, flat dict of scalars to log).
        Traced once per batch shape. key is fold_in(key of the seed, updates done). The
        batch has one more entry, "step", the updates done.
      batches: batches[n] is the dict of arrays [B, ...] of update n = 0, 1, ..., a
        function of n alone. Each process gives its rows (`sharding.own_rows`).
      evaluate: (params) -> figures by name.
      monitor: the figure by which the best parameters are chosen.
      mode: "min" or "max": which way `monitor` improves. A tie is no improvement.
      frozen: arrays that are read but not trained; None for none. If given, init_params
        and loss take them as one more argument.
      frozen_flops: FLOPs per frozen array entry and token, 4 for an adapter's base.
        None where that does not measure the work: then MFU is left out of the log.

    Raises FitConfigError for another mode.
    """

    name: str
    fingerprint: str
    init_params: Callable[..., Any]
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    batches: Any
    evaluate: Callable[[Any], Mapping[str, float]]
    monitor: str
    mode: Literal["min", "max"]
    frozen: Any = None
    frozen_flops: float | None = None

    def __post_init__(self):
        if self.mode not in ("min", "max"):
            raise FitConfigError(f"mode = {self.mode!r}, expected 'min' or 'max'")

    def improves(self, value: float, best: float) -> bool:
        """Whether a value of `monitor` is strictly better than the best so far."""
        return value < best if self.mode == "min" else value > best
