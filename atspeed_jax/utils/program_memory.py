"""What compiled programs and their data cost a process."""

from __future__ import annotations

import resource
from pathlib import Path

import jax

MOST_MAPS = 15_000


def forget_programs(most: int = MOST_MAPS) -> bool:
    """Drops all of JAX's compiled programs if this process has more than `most` memory maps; True if it did.

    Every compiled program maps memory, and Linux lets a process have 65,530 maps (vm.max_map_count): beyond them XLA
    aborts the process ("Cannot allocate memory") with gigabytes free. Programs still in use compile again. To be called
    between pieces of work that share no program.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) <= most:
        return False
    jax.clear_caches()
    return True


def peak_memory() -> int:
    """Bytes resident at most since this program began, on Linux; else ru_maxrss, which begins with the parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
