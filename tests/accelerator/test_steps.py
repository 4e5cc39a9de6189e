"""The rows of a step: shares of the peak, and a batch that does not fit."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from atspeed_jax.accelerator import steps
from atspeed_jax.accelerator.steps import StepSuite, line_of, measure_step
from atspeed_jax.benchmarks.decode_floor import Ceilings
from atspeed_jax.training.chips import CHIPS
from tiny_pair import tiny_pair


def made(flops, tokens, metrics):
    """A step that does nothing."""
    return lambda pair, config, suite: steps.Step(lambda state, batch: (state, metrics), 0, None, tokens, flops)


@pytest.fixture
def still(monkeypatch):
    """Steps that do nothing on a chip that is known; each call of the clock is a second later."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    monkeypatch.setattr(steps, "measure_ceilings", lambda _: Ceilings(4e12, 1.0))
    monkeypatch.setattr(steps, "chip_of_kind", lambda _: CHIPS["h100"])
    monkeypatch.setattr(steps, "_training", made(1e9, 100, {"loss": np.float32(2.5)}))


def test_mfu_is_operations_over_the_peak_of_the_chip(still):
    lines = []
    suite = StepSuite("train", "pair", rows=20, dtype="bfloat16", repeats=3, trace=False)
    row = measure_step(tiny_pair(), suite, lines.append)
    assert row["ms"] == 1e3
    assert row["tokens_per_s"] == 2000
    assert row["tflops"] == 2.0
    assert row["mfu"] == pytest.approx(2e12 / 989e12)
    assert row["of_ceiling"] == 0.5
    assert row["loss"] == 2.5
    assert "20 rows of 100 tokens, bfloat16: 1000.0 ms, 2.0 TFLOP/s, MFU 0.002, 0.500 of a large product" in lines[0]
    assert "peak unknown" in line_of(row | {"mfu": None})


def test_a_batch_that_does_not_fit_is_halved(still, monkeypatch):
    def training(pair, config, suite):
        if suite.rows > 5:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return made(1e9, 100, {"loss": np.float32(0)})(pair, config, suite)

    monkeypatch.setattr(steps, "_training", training)
    lines = []
    row = measure_step(tiny_pair(), StepSuite("train", "pair", rows=20, repeats=1, trace=False), lines.append)
    assert row["rows"] == 5
    assert lines[:2] == ["train: 20 rows do not fit, trying 10", "train: 10 rows do not fit, trying 5"]


def test_another_error_is_not_hidden(still, monkeypatch):
    def training(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: no")

    monkeypatch.setattr(steps, "_training", training)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        measure_step(tiny_pair(), StepSuite("train", "pair", rows=20), print)


def test_rows_are_items_behind_bos():
    pair = tiny_pair()
    tokens = steps._tokens(pair, StepSuite("train", rows=5, tokens=10))
    assert tokens.shape == (5, 10)
    known = set(map(tuple, pair.id_tokens.tolist()))
    assert all(tuple(item) in known for row in tokens for item in row[1:].reshape(-1, 3).tolist())
