"""A training step of an adapter beside PEFT, on the smallest of models."""

import numpy as np
import pytest

for name in ("torch", "transformers", "peft"):
    pytest.importorskip(name)

from atspeed_jax.benchmarks import random_models  # noqa: E402
from atspeed_jax.benchmarks.lora import LoraBenchmark, measure_lora  # noqa: E402


@pytest.mark.filterwarnings("ignore")  # of torch, transformers and peft
def test_both_sides_begin_with_one_loss(monkeypatch):
    monkeypatch.setitem(random_models.SIZES, "tiny", (64, 80, 2))
    said = []
    rows = measure_lora(LoraBenchmark(2, ("float32", "bfloat16"), "tiny", repeats=1), said.append)
    assert len(said) == 2
    assert [(row["side"], row["dtype"]) for row in rows] == [
        (side, dtype) for dtype in ("float32", "bfloat16") for side in ("ours", "peft")
    ]
    ours, theirs, *narrow = (row["first_loss"] for row in rows)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert 1 < ours < 20
    assert np.allclose(narrow, ours, rtol=0.05)
    assert all(row["rows"] == 2 and row["ms_p50"] > 0 for row in rows)
    assert rows[1]["ratio_to_peft"] == 1
    assert rows[0]["temporaries_mib"] > 0
