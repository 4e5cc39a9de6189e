"""What accelerators can do, and the least time that work takes on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from atspeed_jax.models.llama_config import LlamaConfig


class Chip(NamedTuple):
    """What one accelerator can do.

    Attributes:
      kinds: what jax.Device.device_kind begins with.
      flops: dense bfloat16 operations per second.
      hbm_gib: memory in GiB.
      hbm_bytes: bytes that the memory moves per second.
      link_bytes: bytes per second that a chip receives from other chips of its slice
        (ICI) or node (NVLink), all links together.
      float32: operations per second of float32 products, by `LlamaSizes.precision`.
    """

    kinds: tuple[str, ...]
    flops: float
    hbm_gib: float
    hbm_bytes: float
    link_bytes: float
    float32: Mapping[str, float]

    def rate(self, model: LlamaConfig) -> float:
        """Returns the peak operations per second of a model's products.

        A float64 model gets the rate of float32 at precision "highest", which no chip
        here exceeds in float64.
        """
        if jnp.dtype(model.dtype).itemsize < 4:
            return self.flops
        return self.float32[model.precision if model.dtype == "float32" else "highest"]


def _tpu(kinds: tuple[str, ...], flops: float, hbm_gib: float, hbm_bytes: float, link_bytes: float) -> Chip:
    """Makes a TPU, which multiplies float32 in passes of bfloat16.

    XLA takes 6 passes at precision "highest", 3 at "high" and 1 at "default".
    """
    float32 = {"highest": flops / 6, "high": flops / 3, "default": flops}
    return Chip(kinds, flops, hbm_gib, hbm_bytes, link_bytes, float32)


def _gpu(chip: Chip, float32: float, tf32: float) -> Chip:
    """Adds the rates of a GPU, which multiplies float32 as such at "highest", else as TF32."""
    return chip._replace(float32={"highest": float32, "high": tf32, "default": tf32})


# From the makers' data sheets; those of TPUs (docs.cloud.google.com/tpu/docs/v4, v5e,
# v5p, v6e) were read on 2026-11-24. Where a sheet gives both directions of the links
# together, half of that. The links of v4 are six of 50 GB/s (its paper).
CHIPS = {
    "v4": _tpu(("TPU v4",), 275e12, 32, 1200e9, 300e9),
    "v5e": _tpu(("TPU v5 lite", "TPU v5e"), 197e12, 16, 819e9, 200e9),
    "v5p": _tpu(("TPU v5p", "TPU v5"), 459e12, 95, 2765e9, 600e9),
    "v6e": _tpu(("TPU v6 lite", "TPU v6e"), 918e12, 32, 1638e9, 400e9),
    "a100": _gpu(Chip(("NVIDIA A100",), 312e12, 80, 2039e9, 300e9, {}), 19.5e12, 156e12),
    "h100": _gpu(Chip(("NVIDIA H100",), 989e12, 80, 3350e9, 450e9, {}), 67e12, 494e12),
    "h200": _gpu(Chip(("NVIDIA H200",), 989e12, 131, 4800e9, 450e9, {}), 67e12, 494e12),
}


class ChipError(ValueError):
    """A chip that is not in the table."""


def chip_of(name: str) -> Chip:
    """The chip of a name.

    Raises:
      ChipError: the name is not in the table.
    """
    if name not in CHIPS:
        raise ChipError(f"chip {name!r} is unknown; expected one of {', '.join(CHIPS)}")
    return CHIPS[name]


def chip_of_kind(kind: str) -> Chip | None:
    """The chip of a jax.Device.device_kind; None if it is not in the table (a CPU)."""
    known = [(len(start), name) for name, chip in CHIPS.items() for start in chip.kinds if kind.startswith(start)]
    return CHIPS[max(known)[1]] if known else None


class Roofline(NamedTuple):
    """The least time of a piece of work.

    Attributes:
      seconds: the least time.
      bound: what takes it: "FLOPs", "HBM" or "links".
    """

    seconds: float
    bound: str


def roofline(chip: Chip, *, flops: float, hbm_bytes: float, received: float) -> Roofline:
    """The time of work if computation, memory and links overlap, each at its peak.

    Args:
      flops: operations.
      hbm_bytes: bytes moved in memory.
      received: bytes received from other chips.
    """
    times = {
        "FLOPs": flops / chip.flops,
        "HBM": hbm_bytes / chip.hbm_bytes,
        "links": received / chip.link_bytes,
    }
    bound = max(times, key=times.__getitem__)
    return Roofline(times[bound], bound)
