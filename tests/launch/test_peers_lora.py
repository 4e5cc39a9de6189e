"""The lora suite of launch.benchmark, on the smallest of models."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

for name in ("torch", "transformers", "peft"):
    pytest.importorskip(name)

from launch import peers, peers_lora  # noqa: E402


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.filterwarnings("ignore")  # of torch, transformers and peft
def test_both_sides_begin_with_one_loss(monkeypatch):
    monkeypatch.setitem(peers.SIZES, "tiny", (64, 80, 2))
    monkeypatch.setattr(peers_lora, "FLAGS", SimpleNamespace(rows=2, dtypes=["float32", "bfloat16"]))
    rows = peers_lora.lora_rows(Path("unused.json"), "tiny", repeats=1)
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
