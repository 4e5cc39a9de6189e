"""The figures of a row, and which modes are measured."""

import numpy as np
import pytest

from atspeed_jax.benchmarks import overhead
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.serving import model_calls
from atspeed_jax.serving.settings import DecodeConfig, Setting

DECODE = DecodeConfig(widths=(3,), gamma=1, score_norm="vocab")


@pytest.mark.parametrize("mode", ["strict", "relaxed"])
def test_a_row_sums_the_calls_of_each_list(two_models, toy_batches, mode, monkeypatch):
    """Every call takes 2 seconds alone, every list 7."""
    monkeypatch.setattr(model_calls, "run_once", lambda *_: 7.0)
    monkeypatch.setattr(model_calls, "timed_call", lambda call, params: lambda: 2.0)
    setting = Setting.strict("draft", 2, DECODE).searching(mode=mode)
    keys = user_keys(0, np.arange(3))
    row = overhead.measure(two_models.decoders, setting, toy_batches, keys, repeats=1)
    assert row["users"] == 3
    assert row["mode"] == mode
    assert 1 <= row["rounds"] <= 2
    assert row["ms"] == 7000
    assert row["calls_ms"] == pytest.approx(2000 * (2 + row["rounds"] - 1))
    assert row["overhead"] == pytest.approx(row["ms"] / row["calls_ms"])


def test_every_mode_is_measured():
    settings = overhead.every_mode(5, DECODE)
    assert len({setting.label for setting in settings}) == len(settings) == 8
    modes = [
        (setting.search.score_norm, setting.search.mode) for setting in settings if setting.method == "speculative"
    ]
    assert set(modes) == {
        ("vocab", "strict"), ("vocab", "relaxed"), ("vocab", "coupled"), ("vocab", "relaxed_reference"),
        ("trie", "strict"), ("trie", "stochastic"),
    }  # fmt: skip
