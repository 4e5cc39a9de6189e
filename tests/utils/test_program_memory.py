import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.utils.program_memory import available_memory, forget_programs, peak_device_memory, peak_memory


def test_programs_are_dropped_only_when_there_are_many_maps():
    double = jax.jit(lambda x: 2 * x)
    double(jnp.ones(3))
    assert not forget_programs(most=10**9)
    assert double._cache_size() == 1
    assert forget_programs(most=1)
    assert double._cache_size() == 0
    assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_the_peak_is_that_of_the_process_itself():
    """What the parent held must not count, as it does in ru_maxrss."""
    held = np.ones(2**27)  # 1 GiB
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        peak = fresh.submit(peak_memory).result()
    assert 2**20 < peak < held.nbytes


def test_memory_is_that_of_the_device_or_else_of_the_machine(monkeypatch):
    stats = {"bytes_limit": 100, "bytes_in_use": 30, "peak_bytes_in_use": 60}
    devices = SimpleNamespace(memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "devices", lambda: [devices])
    assert (available_memory(), peak_device_memory()) == (70, 60)
    devices.memory_stats = lambda: None
    assert 2**20 < available_memory() < 2**50
    assert peak_device_memory() == peak_memory()
