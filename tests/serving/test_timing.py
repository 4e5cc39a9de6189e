"""The benchmark with decoders of known duration under a clock that they move."""

import functools
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.serving import timing


def batch(number: int, length: int) -> dict:
    """A batch of one user that carries its number as a token."""
    tokens = np.full((1, length), number, np.int32)
    return {"row": np.zeros(1, np.int32), "tokens": tokens, "valid": np.ones((1, length), bool)}


@pytest.fixture
def clock(monkeypatch):
    """(decoder(name, durations of its calls), calls made as (name, batch number))."""
    now, calls = [0.0], []

    def decoder(name, durations):
        durations = iter(durations)

        def decode(prompt):
            calls.append((name, int(prompt.tokens[0, 0])))
            now[0] += next(durations)
            return SimpleNamespace(ids=np.zeros((1, 1)), score=np.zeros((1, 1)), valid=np.ones((1, 1), bool))

        return decode

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 1)  # one call at a time
    return SimpleNamespace(decoder=decoder, calls=calls)


def test_latency_is_the_median_of_the_repeats_without_the_warm_up(clock):
    decoders = {
        "slow": clock.decoder("slow", [100, 3, 9, 4, 0.5, 0.25, 0.75]),
        "fast": clock.decoder("fast", [50, 1, 1, 2, 8, 0.125, 0.25]),
    }
    times = timing.latencies(decoders, [batch(0, 5), batch(1, 5)], repeats=3)
    assert {name: values.tolist() for name, values in times.items()} == {"slow": [4000, 500], "fast": [1000, 250]}


def test_latency_interleaves_the_decoders(clock):
    decoders = {name: clock.decoder(name, [1.0] * 9) for name in "ab"}
    timing.latencies(decoders, [batch(0, 5), batch(1, 5)], repeats=3)
    warm_up, measured = clock.calls[:2], clock.calls[2:]
    assert [name for name, _ in warm_up] == ["a", "b"]
    assert measured == [(name, number) for number in (0, 1) for _ in range(3) for name in "ab"]


def test_every_shape_is_warmed_up_once(clock):
    decoders = {"a": clock.decoder("a", [100, 200, 1, 2, 4, 8])}
    times = timing.latencies(decoders, [batch(0, 5), batch(1, 9), batch(2, 5), batch(3, 9)], repeats=1)
    assert len(clock.calls) == 2 + 4
    assert times["a"].tolist() == [1000, 2000, 4000, 8000]


def test_time_is_taken_until_the_lists_are_on_the_host(clock, monkeypatch):
    fetched = []
    decode = clock.decoder("a", [2.0])
    monkeypatch.setattr(timing, "gather", lambda values: fetched.append(len(values)))
    assert timing.run_once(decode, batch(0, 5)) == 2.0
    assert fetched == [3]  # ids, scores, validity


def test_programs_are_compiled_side_by_side(monkeypatch):
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(timing.jax, "device_count", lambda: 1)
    both = threading.Barrier(2, timeout=20)
    timing.compile_together([both.wait, both.wait])


def test_programs_of_several_devices_start_in_one_order(monkeypatch):
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(timing.jax, "device_count", lambda: 2)
    seen = []

    def run(number):
        seen.append(number)
        time.sleep(0.02 * (3 - number))
        seen.append(number)

    timing.compile_together([functools.partial(run, number) for number in range(3)])
    assert seen == [0, 0, 1, 1, 2, 2]


def test_what_does_not_compile_is_raised(monkeypatch):
    def broken():
        raise ValueError("no such program")

    with pytest.raises(ValueError, match="no such program"):
        timing.compile_together([lambda: None, broken])
