"""What `measure_cell` compares: the users of a cell in other batches, and the budget of a suite."""

import dataclasses
import time

import numpy as np
import pytest

from atspeed_jax.benchmarks import decode_measure
from atspeed_jax.benchmarks.decode_cells import DecodeSuite, Way
from atspeed_jax.benchmarks.decode_measure import Bench, Clock, OutOfTime
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import Setting
from tiny_pair import tiny_pair

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_clock_ends():
    Clock().check(1e9)
    Clock(time.perf_counter() + 100).check(1)
    with pytest.raises(OutOfTime):
        Clock(time.perf_counter() + 1).check(2)


def test_plain_beam_search_in_other_batches_has_every_user_once():
    pair = tiny_pair()
    decoders = pair.decoders(pair.target, unrolled=False)
    setting = Setting.beam_search(2, "vocab")
    batches = pair.batches(9, 1, 6, least=1)
    decode = decoders.build(setting)
    plain = decode_users(decode, batches, 6)
    timed = decode_measure.Timed(Way("plain", "strict", setting), decode, None, plain, 0.0, np.zeros((1, 6)))
    other = decode_measure._in_other_batches(timed, batches)
    assert other.batches == 2
    assert not differing(other, plain).any()


def test_time_that_runs_out_ends_after_a_whole_repeat():
    pair = tiny_pair()
    decoders = pair.decoders(pair.target, unrolled=False)
    suite = dataclasses.replace(DecodeSuite(), repeats=3)
    bench = Bench(pair, suite, decoders, decoders, None, Clock(time.perf_counter() - 1), print)
    setting = Setting.beam_search(2, "vocab")
    batches = pair.batches(9, 1, 2, least=1)
    decode = decoders.build(setting)
    seconds = np.full((3, len(batches)), np.nan)
    timed = decode_measure.Timed(Way("plain", "strict", setting), decode, None, None, 0.0, seconds)
    assert not decode_measure._time(bench, [timed], batches)
    assert np.isfinite(seconds[0]).all()
    assert np.isnan(seconds[1:]).all()
