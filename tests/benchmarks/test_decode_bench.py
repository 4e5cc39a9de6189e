import math
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.benchmarks import decode_bench as B
from atspeed_jax.benchmarks.decode_cells import DecodeSuite, Way
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.settings import Setting


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


def bench_that(program):
    """A bench whose decoders make this program, and the lines that it says."""
    made = {"build": lambda setting: "built", "headed": lambda prompt, drafter: prompt}
    decoders, lines = SimpleNamespace(program=program, trie=None, **made), []
    suite = DecodeSuite(threads=2)
    return B.Bench(None, suite, decoders, None, None, B.Clock(), lines.append), lines


def rows(*beams):
    batch = {"tokens": np.ones((1, 3), np.int32), "valid": np.ones((1, 3), bool)}
    return [(Way("plain", "strict", Setting.beam_search(one, "vocab")), batch) for one in beams]


def test_programs_are_compiled_ahead_by_setting_and_shape():
    bench, lines = bench_that(lambda setting: (lambda scale, _, prompt: scale * prompt.tokens, setting.search.beams))
    bench.compile_ahead(rows(2, 3, 2))
    assert len(bench.ahead) == 2
    (way, batch), other = rows(3)[0], {"tokens": np.ones((2, 3), np.int32)}
    decode, seconds = bench.build(way, batch)
    assert decode(prompt_of(batch)).tolist() == [[3, 3, 3]]
    assert seconds > 0
    assert bench.build(way, other) == ("built", 0.0)
    assert not lines
    before = dict(bench.ahead)
    bench.compile_ahead(rows(2, 4))
    assert {name: bench.ahead[name] for name in before} == before
    assert len(bench.ahead) == 3


def test_a_program_that_does_not_compile_is_left_to_its_row():
    def program(setting):
        raise ValueError("no such tree")

    bench, lines = bench_that(program)
    bench.compile_ahead(rows(2))
    assert bench.build(*rows(2)[0]) == ("built", 0.0)
    assert lines == ["beam_search_none_K2_wnone_g0_vocab: not compiled ahead: no such tree"]
