import math

import pytest

from atspeed_jax.benchmarks import decode_bench as B


def test_a_clock_without_a_budget_never_stops():
    clock = B.Clock()
    clock.check(needed=1e9)
    assert clock.left == math.inf


def test_a_clock_stops_when_less_is_left_than_is_needed(monkeypatch):
    monkeypatch.setattr(B.time, "perf_counter", lambda: 100.0)
    clock = B.Clock(end=103.0)
    assert clock.left == 3
    clock.check(needed=2.9)
    with pytest.raises(B.OutOfTime):
        clock.check(needed=3.0)
    monkeypatch.setattr(B.time, "perf_counter", lambda: 104.0)
    with pytest.raises(B.OutOfTime):
        clock.check()
