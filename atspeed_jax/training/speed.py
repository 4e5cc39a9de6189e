"""The speed of training: seconds by part, share of the hardware used, traces."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from atspeed_jax.training.chips import chip_of_kind
from atspeed_jax.utils.distributed import is_writer


class StepTimes:
    """Adds up seconds by part: "data", "checkpoint", "evaluation".

    The rest of a step is "compute": dispatching the step, and waiting for the step
    before.
    """

    def __init__(self, devices: Iterable[Any], flops: float | None):
        """
        Args:
          devices: the devices of the mesh.
          flops: FLOPs per token, for MFU; None if unknown.
        """
        self._devices, self._flops = list(devices), flops
        self._restart()

    def _restart(self) -> None:
        self._seconds: dict[str, float] = collections.defaultdict(float)
        self._steps, self._tokens, self._since = 0, 0, time.perf_counter()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts the time of the block as `part`."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - since

    def count(self, tokens: int) -> None:
        """Counts one more step.

        Args:
          tokens: tokens of its batch, padding included.
        """
        self._steps += 1
        self._tokens += tokens

    def figures(self) -> dict[str, float]:
        """Means since the last call, and starts anew.

        Returns:
          "step_s" and its parts "data_s", "checkpoint_s", "evaluation_s", "compute_s":
          seconds per step. "tokens_per_s_per_device", without the time of checkpoints
          and evaluations, if tokens were counted. "mfu", the share of the peak FLOPs,
          if the chip and the FLOPs are known. "memory_gib" and "memory_peak_gib" of the
          first local device, if the device reports them.
        """
        total = time.perf_counter() - self._since
        steps = max(1, self._steps)
        parts = {name: self._seconds[name] for name in ("data", "checkpoint", "evaluation")}
        found = {f"{name}_s": seconds / steps for name, seconds in parts.items()}
        found |= {"step_s": total / steps, "compute_s": max(0.0, total - sum(parts.values())) / steps}
        working = total - parts["checkpoint"] - parts["evaluation"]
        if self._tokens:
            found["tokens_per_s_per_device"] = self._tokens / working / len(self._devices)
            chip = chip_of_kind(self._devices[0].device_kind)
            if chip and self._flops is not None:
                found["mfu"] = self._flops * found["tokens_per_s_per_device"] / chip.flops
        local = next(device for device in self._devices if device.process_index == jax.process_index())
        if memory := local.memory_stats():
            found["memory_gib"] = memory["bytes_in_use"] / 2**30
            found["memory_peak_gib"] = memory.get("peak_bytes_in_use", 0) / 2**30
        self._restart()
        return found


def flops_per_token(params, frozen, frozen_flops: float | None) -> float | None:
    """FLOPs of training per token.

    6 per trained parameter, forward and backward (Kaplan et al. 2020).

    Args:
      frozen_flops: FLOPs per entry of `frozen`; None if unknown.

    Returns:
      None if `frozen` is given and its FLOPs are unknown.
    """
    if frozen is not None and frozen_flops is None:
        return None
    trained, read = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, frozen))
    return 6.0 * trained + (frozen_flops or 0.0) * read


class Profile:
    """A trace of some steps in DIR/profile, for TensorBoard, XProf or Perfetto."""

    def __init__(self, directory: Path, steps: tuple[int, int] | None):
        """
        Args:
          directory: DIR.
          steps: first and last step to trace, counted from 1; None for no trace.

        Raises:
          ValueError: the first step is below 1, or after the last.
        """
        if steps is not None and not 1 <= steps[0] <= steps[1]:
            raise ValueError(f"profile_steps={steps[0]}:{steps[1]}: expected FIRST:LAST, steps counted from 1")
        # The first process alone traces: JAX's Perfetto export takes no more than one
        # trace in a directory.
        self._steps = steps if is_writer() else None
        self._directory, self._running = directory / "profile", False

    def missed(self, done: int, steps: int) -> str | None:
        """Which of the steps to trace a training does not reach.

        Args:
          done: steps that are done already.
          steps: steps of the whole training.

        Returns:
          a sentence for the user; None if all steps to trace are reached.
        """
        if self._steps is None:
            return None
        first, last = self._steps
        asked = f"profile_steps={first}:{last}"
        if not done < first <= steps:
            return f"{asked}: nothing will be traced, training goes from step {done + 1} to {steps}"
        return f"{asked}: the trace will end with step {steps}, the last" if last > steps else None

    def before(self, step: int) -> None:
        """Starts the trace before its first step."""
        if self._steps is not None and step == self._steps[0]:
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, results) -> None:
        """Ends the trace after its last step.

        Args:
          results: what the step computes; the trace waits for it.
        """
        if self._running and self._steps is not None and step >= self._steps[1]:
            jax.block_until_ready(results)
            self.stop()

    def stop(self) -> None:
        """Ends a trace that is under way."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
