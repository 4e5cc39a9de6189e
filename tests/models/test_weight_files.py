import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atspeed_jax.models import weight_files
from atspeed_jax.models.weight_files import INDEX_FILE, ONE_FILE
from atspeed_jax.models.weights import load_weights
from numpy_llama import wide_params
from weight_dirs import TIED, problems, split_in_files, stored


def test_an_index_that_lies(tmp_path):
    index = split_in_files(tmp_path)
    files = sorted(set(index["weight_map"].values()))
    (tmp_path / files[0]).unlink()
    assert f"{files[0]}, named by {INDEX_FILE}, is missing" in problems(tmp_path)
    index["weight_map"]["model.norm.weight"] = files[1]
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    message = problems(tmp_path)
    assert f"puts model.norm.weight into {files[1]}, which lacks it" in message
    assert "holds model.norm.weight, which" in message


def test_a_tensor_in_two_files(tmp_path):
    index = split_in_files(tmp_path)
    files = sorted(set(index["weight_map"].values()))
    extra = {"model.norm.weight": np.zeros(8, np.float32)}
    save_file(load_file(tmp_path / files[0]) | extra, tmp_path / files[0])
    message = problems(tmp_path)
    assert "model.norm.weight is in both" in message
    assert f"{files[0]} holds model.norm.weight" in message


@pytest.mark.parametrize("kept", [5, 200, -1])
def test_a_file_that_was_cut_off(tmp_path, kept):
    stored(tmp_path)
    content = (tmp_path / ONE_FILE).read_bytes()
    (tmp_path / ONE_FILE).write_bytes(content[:kept])
    assert f"{ONE_FILE} is damaged or cut off" in problems(tmp_path)


def test_no_weights_and_two_kinds_of_them(tmp_path):
    assert f"neither {ONE_FILE} nor {INDEX_FILE}; save the model" in problems(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pickles, which are never loaded" in problems(tmp_path)
    (tmp_path / INDEX_FILE).write_text("[]")
    assert "expected a JSON object with a weight_map" in problems(tmp_path)
    (tmp_path / INDEX_FILE).write_text('{"weight_map": {"x": null}}')
    assert f"{INDEX_FILE} puts x into None, expected the name of a file" in problems(tmp_path)
    stored_one = tmp_path / ONE_FILE
    stored_one.write_bytes(b"")
    assert "has both" in problems(tmp_path)


def other_in_the_last_entry(table):
    return np.where(np.arange(table.size).reshape(table.shape) == table.size - 1, 9, table).astype(table.dtype)


@pytest.mark.parametrize(
    "change", [np.zeros_like, other_in_the_last_entry, lambda table: table.astype(np.float16), lambda table: table[:-1]]
)
def test_another_head_beside_a_tied_embedding_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(weight_files, "COMPARED_BYTES", 100)  # three rows at once
    stored(tmp_path, TIED, **{"lm_head.weight": change(wide_params(TIED, seed=0)["embedding"])})
    message = problems(tmp_path, TIED)
    assert "lm_head.weight is stored although config.json ties it" in message
    assert "set tie_word_embeddings to false" in message


@pytest.mark.parametrize("block", [100, 1 << 26])
def test_the_same_head_beside_a_tied_embedding_is_left_out(tmp_path, monkeypatch, block):
    """Some programs store both."""
    monkeypatch.setattr(weight_files, "COMPARED_BYTES", block)
    params = wide_params(TIED, seed=0)
    stored(tmp_path, TIED, **{"lm_head.weight": np.array(params["embedding"])})
    jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path, TIED), params)
