"""The repeats of a cell, and the budget of a suite."""

import dataclasses
import time

import numpy as np

from atspeed_jax.benchmarks import decode_measure
from atspeed_jax.benchmarks.decode_bench import Bench, Clock, Timed
from atspeed_jax.benchmarks.decode_cells import DecodeSuite, Way
from atspeed_jax.serving.settings import Setting
from tiny_pair import tiny_pair


def test_time_that_runs_out_ends_after_a_whole_repeat():
    pair = tiny_pair()
    decoders = pair.decoders(pair.target, unrolled=False)
    suite = dataclasses.replace(DecodeSuite(), repeats=3)
    bench = Bench(pair, suite, decoders, decoders, None, Clock(time.perf_counter() - 1), print)
    setting = Setting.beam_search(2, "vocab")
    batches = pair.batches(9, 1, 2, least=1)
    decode = decoders.build(setting)
    seconds = np.full((3, len(batches)), np.nan)
    timed = Timed(Way("plain", "strict", setting), decode, None, None, 0.0, seconds)
    assert not decode_measure._time(bench, [timed], batches)
    assert np.isfinite(seconds[0]).all()
    assert np.isnan(seconds[1:]).all()
