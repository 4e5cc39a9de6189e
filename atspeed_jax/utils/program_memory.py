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


def available_memory() -> float:
    """Returns the bytes that arrays may still take on the first device.

    That is what the device says of itself; on a CPU, what Linux calls available.
    Infinity where neither says anything.
    """
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    memory = Path("/proc/meminfo")
    if not memory.exists():
        return float("inf")
    return 1024.0 * int(memory.read_text(encoding="utf-8").partition("MemAvailable:")[2].split()[0])


def peak_device_memory() -> int:
    """Returns the largest number of bytes that arrays took on the first device so far.

    On a CPU it is the memory of this process (`peak_memory`).
    """
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] if "peak_bytes_in_use" in stats else peak_memory()
