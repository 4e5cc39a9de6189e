import resource
from pathlib import Path


def now() -> int:
    """Bytes that this process holds in memory; their peak: `atspeed_jax.utils.program_memory.peak_memory`."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
