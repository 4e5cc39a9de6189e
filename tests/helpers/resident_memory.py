"""What a process holds in memory, from /proc; bytes."""

import resource
from pathlib import Path


def now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Since this program began; getrusage's ru_maxrss would begin with that of the parent."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
