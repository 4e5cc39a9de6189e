"""Memory of a process: its compiled programs and its peak."""

from __future__ import annotations

import resource
from pathlib import Path

import jax

MOST_MAPS = 15_000


def forget_programs(most: int = MOST_MAPS) -> bool:
    """Drops JAX's compiled programs if the process has many memory maps.

    Every compiled program maps memory. Linux allows a process 65,530 maps
    (vm.max_map_count). Beyond that XLA aborts the process ("Cannot allocate memory")
    although gigabytes are free. Programs that are needed again compile again, so call
    this between pieces of work that share no program.

    Args:
      most: number of maps up to which programs are kept.

    Returns:
      Whether programs were dropped.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) <= most:
        return False
    jax.clear_caches()
    return True


def peak_memory() -> int:
    """Returns the largest resident memory of this process so far, in bytes.

    Elsewhere than on Linux it returns ru_maxrss, which counts from the parent's memory.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
