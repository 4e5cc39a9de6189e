"""Our decoders beside Hugging Face `generate`, on the smallest of models."""

import importlib.util

import pytest

from atspeed_jax.benchmarks import generate, random_models

HAVE_BOTH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


@pytest.mark.skipif(not HAVE_BOTH, reason="needs torch and transformers: pip install -r tests/hugging_face.txt")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_rows(monkeypatch):
    monkeypatch.setitem(random_models.SIZES, "tiny", (64, 80, 2))
    config = generate.GenerateConfig(("tiny",), (2,), (3,), (8,), ("all", 8, 8), repeats=3, seconds=0.0)
    said = []
    rows = generate.measure_generate(config, said.append)
    ours = ["beam_search", "speculative", "beam_search_unrolled", "speculative_unrolled"]
    methods = ["hf_generate", "hf_generate_trie", *ours]
    assert [(row["K"], row["method"]) for row in rows] == [(3, method) for method in methods]
    assert len(said) == 1
    assert all(row["batch"] == 2 and row["prompt"] == 9 and row["rounds"] == 3 for row in rows)
    assert all(row["equal"] is True for row in rows if row["method"] != "hf_generate")
    assert rows[0]["work_ratio"] == pytest.approx(3 * (9 + 3) / (9 + 3 * 3))
    by_method = {row["method"]: row for row in rows}
    for name in ("", "_unrolled"):
        assert by_method["beam_search" + name]["target_calls"] == 4
        assert 1 <= by_method["speculative" + name]["target_calls"] <= 4
    for row in rows:
        assert row["ratio_to_hf"] == pytest.approx(by_method["hf_generate"]["ms_p50"] / row["ms_p50"])
