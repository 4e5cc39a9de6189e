"""Where the time of training goes, what of the hardware it uses, and traces of single steps."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from atspeed_jax.training.chips import chip_of_kind
from atspeed_jax.utils.distributed import is_writer


class StepTimes:
    """Adds up seconds by part ("data", "checkpoint", "evaluation"); what is left of a step is "compute": dispatching
    it, and waiting for the one before."""

    def __init__(self, devices: Sequence[jax.Device], flops: float | None):
        """devices: of the mesh. flops: per token, for MFU; None where they are not known."""
        self._devices, self._flops = list(devices), flops
        self._restart()

    def _restart(self) -> None:
        self._seconds: dict[str, float] = collections.defaultdict(float)
        self._steps, self._tokens, self._since = 0, 0, time.perf_counter()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts the time it lasts as that part."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - since

    def count(self, tokens: int) -> None:
        """One more step, of a batch with so many tokens, padding included."""
        self._steps += 1
        self._tokens += tokens

    def figures(self) -> dict[str, float]:
        """Since the last call, per step: "step_s" and its parts "data_s", "checkpoint_s", "evaluation_s", "compute_s";
        "tokens_per_s_per_device"; where the device says so, "mfu", the share of its peak (if the FLOPs are known), and
        "memory_gib", "memory_peak_gib" of the first local one."""
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
    """Of training: 6 FLOPs per parameter, forward and backward (Kaplan et al. 2020), and so many per frozen one."""
    if frozen is not None and frozen_flops is None:
        return None
    trained, read = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, frozen))
    return 6.0 * trained + (frozen_flops or 0.0) * read


class Profile:
    """A trace of the steps first..last of a run in DIR/profile, for TensorBoard, XProf or Perfetto."""

    def __init__(self, directory: Path, steps: tuple[int, int] | None):
        if steps is not None and not 1 <= steps[0] <= steps[1]:
            raise ValueError(f"profile_steps={steps[0]}:{steps[1]}: expected FIRST:LAST, steps counted from 1")
        # Of the first process alone: traces of several in one directory are more than JAX's Perfetto export takes.
        self._steps = steps if is_writer() else None
        self._directory, self._running = directory / "profile", False

    def before(self, step: int) -> None:
        if self._steps is not None and step == self._steps[0]:
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, results) -> None:
        """results: of the step, waited for where it is the last one traced."""
        if self._running and step >= self._steps[1]:
            jax.block_until_ready(results)
            self.stop()

    def stop(self) -> None:
        """Ends a trace that is under way, at the end of training too."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
