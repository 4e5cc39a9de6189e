"""What accelerators can do, and the least time that work takes on one."""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """Per chip. flops: dense bfloat16 products, per second. hbm_gib, hbm_bytes: memory, and what it moves per second.
    link_bytes: what a chip receives from others of its slice (ICI) or node (NVLink) per second, all links together."""

    flops: float
    hbm_gib: float
    hbm_bytes: float
    link_bytes: float


# The makers' data sheets (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e; NVIDIA's of A100 and H100 SXM), read on
# 2026-11-24. Where they give a link's two directions together, half of it; v4's link is that of the paper, six of 50.
CHIPS = {
    "v4": Chip(275e12, 32, 1200e9, 300e9),
    "v5e": Chip(197e12, 16, 819e9, 200e9),
    "v5p": Chip(459e12, 95, 2765e9, 600e9),
    "v6e": Chip(918e12, 32, 1638e9, 400e9),
    "a100": Chip(312e12, 80, 2039e9, 300e9),
    "h100": Chip(989e12, 80, 3350e9, 450e9),
}


class ChipError(ValueError):
    """A chip that is not in the table."""


def chip_of(name: str) -> Chip:
    """The chip of this name; raises ChipError."""
    if name not in CHIPS:
        raise ChipError(f"chip {name!r} is unknown; expected one of {', '.join(CHIPS)}")
    return CHIPS[name]


class Roofline(NamedTuple):
    """seconds: at least. bound: what takes them."""

    seconds: float
    bound: str


def roofline(chip: Chip, *, flops: float, hbm_bytes: float, received: float) -> Roofline:
    """If all three overlap perfectly and each runs at its peak."""
    times = {
        "FLOPs": flops / chip.flops,
        "HBM": hbm_bytes / chip.hbm_bytes,
        "links": received / chip.link_bytes,
    }
    bound = max(times, key=times.__getitem__)
    return Roofline(times[bound], bound)
