import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.utils.program_memory import forget_programs, peak_memory


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
