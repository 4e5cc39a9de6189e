"""Where a device's time goes: kernels in a trace of JAX's profiler, summed by name."""

from __future__ import annotations

import collections
import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

# Kind of a kernel -> what its name contains. Products of matrices have the names of the
# libraries that compute them; the first kind that fits counts.
KINDS = {
    "products": re.compile(r"gemm|gemv|nvjet|cutlass|cublas|xmma|fmha|flash|conv|dot", re.IGNORECASE),
    "copies": re.compile(r"memcpy|memset|copy", re.IGNORECASE),
    "others": re.compile(""),
}
MOST_NAMES = 12


class Kernel(NamedTuple):
    """One launch.

    Attributes:
      name: of the kernel.
      start_ns, duration_ns: nanoseconds of the device's clock.
    """

    name: str
    start_ns: float
    duration_ns: float


@dataclasses.dataclass(frozen=True)
class DeviceTime:
    """Where the time of a call goes; all figures are per call.

    Attributes:
      busy_ms: time in which the device ran a kernel.
      span_ms: time from the start of the first kernel to the end of the last.
      kernels: launches.
      kinds: ms of the kernels by kind (KINDS).
      top: name without numbers, ms and launches of the names that take most.
    """

    busy_ms: float
    span_ms: float
    kernels: float
    kinds: dict[str, float]
    top: tuple[tuple[str, float, float], ...]

    @classmethod
    def of(cls, kernels: Iterable[Kernel], calls: int) -> DeviceTime | None:
        """Sums up the kernels of several equal calls; None without a kernel."""
        kernels = sorted(kernels, key=lambda one: one.start_ns)
        if not kernels:
            return None
        times: dict[str, float] = collections.defaultdict(float)
        counts = collections.Counter()
        kinds, busy, end = dict.fromkeys(KINDS, 0.0), 0.0, kernels[0].start_ns
        for name, start, duration in kernels:
            plain = re.sub(r"[._]?\d+", "", name)[:60]
            times[plain] += duration
            counts[plain] += 1
            kinds[next(kind for kind, pattern in KINDS.items() if pattern.search(name))] += duration
            # Kernels of several streams overlap.
            busy += max(0.0, start + duration - max(start, end))
            end = max(end, start + duration)
        scale = 1e6 * calls
        most = sorted(times.items(), key=lambda one: -one[1])[:MOST_NAMES]
        top = tuple((name, time / scale, counts[name] / calls) for name, time in most)
        span = (end - kernels[0].start_ns) / scale
        return cls(busy / scale, span, len(kernels) / calls, {kind: ns / scale for kind, ns in kinds.items()}, top)


def traced(run: Callable[[], Any], *, calls: int = 3) -> DeviceTime | None:
    """Traces calls of a function that has been compiled.

    Args:
      run: returns arrays of JAX.
      calls: number of calls.

    Returns:
      Where the device's time goes; None if the trace names no kernel.
    """
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(calls):
                jax.block_until_ready(run())
        found = [
            kernel
            for path in Path(directory).rglob("*.xplane.pb")
            for kernel in kernels_of(jax.profiler.ProfileData.from_file(str(path)).planes)
        ]
    return DeviceTime.of(found, calls)


def in_words(found: Mapping[str, Any]) -> str:
    """Says in a line what the fields of a `DeviceTime` say, the names apart."""
    kinds = ", ".join(f"{kind} {ms:.3f}" for kind, ms in found["kinds"].items())
    return f"busy {found['busy_ms']:.3f} of {found['span_ms']:.3f} ms with {found['kernels']:.0f} kernels ({kinds})"


def kernels_of(planes: Iterable[Any]) -> Iterator[Kernel]:
    """Lists the kernels of a trace.

    A GPU has a plane with a line per stream, a TPU a plane with a line "XLA Ops". A CPU
    has no plane: the events of the host that name an instruction of the program count.

    Args:
      planes: of `jax.profiler.ProfileData`.
    """
    for plane in planes:
        on_device = plane.name.startswith("/device:")
        for line in plane.lines:
            if on_device and not ("Stream" in line.name or line.name == "XLA Ops"):
                continue
            for event in line.events:
                if on_device or any(name == "hlo_op" for name, _ in event.stats):
                    yield Kernel(event.name, event.start_ns, event.duration_ns)
