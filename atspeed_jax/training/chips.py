"""What accelerators can do, and the least time that work takes on one."""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """What one accelerator can do.

    Attributes:
      kinds: what jax.Device.device_kind begins with.
      flops: dense bfloat16 operations per second.
      hbm_gib: memory in GiB.
      hbm_bytes: bytes that the memory moves per second.
      link_bytes: bytes per second that a chip receives from other chips of its slice
        (ICI) or node (NVLink), all links together.
    """

    kinds: tuple[str, ...]
    flops: float
    hbm_gib: float
    hbm_bytes: float
    link_bytes: float


# From the makers' data sheets; those of TPUs (docs.cloud.google.com/tpu/docs/v4, v5e,
# v5p, v6e) were read on 2026-11-24. Where a sheet gives both directions of the links
# together, half of that. The links of v4 are six of 50 GB/s (its paper).
CHIPS = {
    "v4": Chip(("TPU v4",), 275e12, 32, 1200e9, 300e9),
    "v5e": Chip(("TPU v5 lite", "TPU v5e"), 197e12, 16, 819e9, 200e9),
    "v5p": Chip(("TPU v5p", "TPU v5"), 459e12, 95, 2765e9, 600e9),
    "v6e": Chip(("TPU v6 lite", "TPU v6e"), 918e12, 32, 1638e9, 400e9),
    "a100": Chip(("NVIDIA A100",), 312e12, 80, 2039e9, 300e9),
    "h100": Chip(("NVIDIA H100",), 989e12, 80, 3350e9, 450e9),
    "h200": Chip(("NVIDIA H200",), 989e12, 131, 4800e9, 450e9),
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
