"""The peers suite of launch.benchmark, on the smallest of models."""

import importlib.util

import numpy as np
import pytest

import launch.peers as peers
from atspeed_jax.models.llama import LlamaConfig
from mains import run_mains

HAVE_BOTH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def test_a_shorter_model_is_the_first_layers():
    config = peers.random_config("4M", 30)
    assert isinstance(config, LlamaConfig)
    assert config.heads * config.head_dim == config.hidden_size
    params = {"embedding": np.ones(3), "layers": {"a": np.arange(8).reshape(4, 2)}}
    fewer, own = peers.first_layers(config, params, 2)
    assert fewer.layers == 2
    assert own["layers"]["a"].tolist() == [[0, 1], [2, 3]]
    assert own["embedding"] is params["embedding"]


def test_prompts_fill_the_tokens():
    catalog = peers.random_catalog(0)
    batch = peers.random_prompts(catalog, 3, 80, 0)
    assert batch["tokens"].shape == (3, 81)
    assert batch["valid"].all()
    assert (batch["tokens"][:, 0] == 1).all()
    ids = {tuple(row) for row in catalog.id_tokens.tolist()}
    assert all(tuple(row) in ids for row in batch["tokens"][:, 1:].reshape(-1, 4).tolist())


def test_bad_flags(tmp_path):
    flags = ["--suite=peers", f"--json={tmp_path / 'p.json'}", "--models=5M"]
    (result,) = run_mains([("benchmark", None, None, flags, "")], {})
    assert result.code == 1
    assert "--models=5M: expected some of 4M, 25M, 110M" in result.err.splitlines()[-1]


@pytest.mark.skipif(HAVE_BOTH, reason="torch and transformers are here")
def test_without_torch(tmp_path):
    flags = ["--suite=peers", f"--json={tmp_path / 'p.json'}", "--models=4M"]
    (result,) = run_mains([("benchmark", None, None, flags, "")], {})
    assert result.code == 1
    assert "pip install -r tests/peers.txt" in result.err.splitlines()[-1]


@pytest.mark.skipif(not HAVE_BOTH, reason="needs torch and transformers: pip install -r tests/peers.txt")
@pytest.mark.filterwarnings("ignore")
def test_rows(monkeypatch):
    monkeypatch.setitem(peers.SIZES, "tiny", (64, 80, 2))
    config = peers.PeersConfig(("tiny",), (2,), (1, 3), (8,), ("all", 8, 8), repeats=3, seconds=0.0)
    said = []
    rows = peers.measure_peers(config, said.append)
    ours = ["beam_search", "speculative", "beam_search_unrolled", "speculative_unrolled"]
    methods = ["hf_generate", "hf_generate_trie", *ours]
    assert [(row["K"], row["method"]) for row in rows] == [(k, method) for k in (1, 3) for method in methods]
    assert len(said) == 2
    assert all(row["batch"] == 2 and row["prompt"] == 9 and row["rounds"] == 3 for row in rows)
    assert all(row["equal"] is True for row in rows if row["method"] != "hf_generate")
    assert rows[6]["work_ratio"] == pytest.approx(3 * (9 + 3) / (9 + 3 * 3))
    by_method = {row["method"]: row for row in rows[6:]}
    for name in ("", "_unrolled"):
        assert by_method["beam_search" + name]["target_calls"] == 4
        assert 1 <= by_method["speculative" + name]["target_calls"] <= 4
    for row in rows[6:]:
        assert row["ratio_to_hf"] == pytest.approx(by_method["hf_generate"]["ms_p50"] / row["ms_p50"])
