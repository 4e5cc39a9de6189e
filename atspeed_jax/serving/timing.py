"""Time per list of several decoders, measured side by side in one run.

A time reaches from token ids on the host to lists on the host, after a warm-up of the
same shape. Decoders are interleaved, so that a drift of the machine affects all of them
alike; read ratios, not milliseconds.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.serving.decode_users import Keys, prompt_of
from atspeed_jax.utils.distributed import gather

Decode = Callable[[Prompt], Result]


def run_once(decode: Decode, batch: Mapping[str, Any], keys: Keys | None = None) -> float:
    """Seconds of one decode of a batch, from NumPy tokens to NumPy lists. keys: see
    `prompt_of`.
    """
    start = time.perf_counter()
    result = decode(prompt_of(batch, keys))
    gather((result.ids, result.score, result.valid))
    return time.perf_counter() - start


def latencies(decoders: Mapping[str, Decode], batches: Sequence[dict], *, repeats: int) -> dict[str, np.ndarray]:
    """Measures the latency of several decoders on the same batches, interleaved.

    Args:
      decoders: by name.
      batches: of one user each, for latency at batch 1, or of more.
      repeats: runs of each batch, of which the median counts.

    Returns:
      {name: [batches] milliseconds}.
    """
    _warm_up(decoders, batches)
    times = {name: np.zeros(len(batches)) for name in decoders}
    for number, batch in enumerate(batches):
        runs = {name: functools.partial(run_once, decode, batch) for name, decode in decoders.items()}
        for name, seconds in medians(runs, repeats=repeats).items():
            times[name][number] = 1e3 * seconds
    return times


def medians(runs: Mapping[Any, Callable[[], float]], *, repeats: int) -> dict[Any, float]:
    """The median of the values that each function returns (seconds, say), all of them
    interleaved.

    Args:
      runs: functions by name.
      repeats: calls of each function.
    """
    rounds = [{name: run() for name, run in runs.items()} for _ in range(repeats)]
    return {name: statistics.median(one[name] for one in rounds) for name in runs}


def fastest(run: Callable[[], Any], *, repeats: int, seconds: float = 0.0) -> float:
    """Least seconds of a function that returns arrays of JAX, after a warm-up.

    The least, since what disturbs a machine only makes a call longer.

    Args:
      run: what is timed.
      repeats: least number of calls.
      seconds: calls go on until they took so long together.
    """
    jax.block_until_ready(run())
    times: list[float] = []
    while len(times) < repeats or sum(times) < seconds:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def _warm_up(decoders: Mapping[str, Decode], batches: Sequence[dict]) -> None:
    """Compiles every decoder for every batch shape, see `compile_together`."""
    shapes = {batch["tokens"].shape: batch for batch in batches}.values()
    compile_together(functools.partial(run_once, decode, batch) for batch in shapes for decode in decoders.values())


def compile_together(runs: Iterable[Callable[[], Any]]) -> None:
    """Calls functions once, several at a time, since XLA compiles a program with about
    one core.

    Where there are several devices the functions run one after the other: programs that
    exchange data must start in one order on all devices.

    Args:
      runs: functions that compile a program each, and run it.
    """
    threads = min(4, os.cpu_count() or 1) if jax.device_count() == 1 else 1
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda run: run(), runs):
            pass
