import dataclasses
import json

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer

from atspeed_jax.export import ExportError, export_hf
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.weights import load_weights
from bases import BASE
from numpy_llama import wide_params
from words import words_tokenizer

CATALOG = Catalog.from_codes(np.array([[0, 2, 1], [1, 0, 0], [1, 3, 2]]))
CONFIG = dataclasses.replace(
    BASE,
    vocab_size=CATALOG.vocab_size,
    hidden_size=8,
    intermediate_size=12,
    layers=2,
    head_dim=4,
    rope_theta=100.0,
    norm_eps=1e-5,
    dropout=0.1,
)


def exported(directory, **changes):
    params = wide_params(CONFIG, seed=0)
    export_hf(directory, CONFIG, params, CATALOG, **{"history": 5, "dtype": "float32"} | changes)
    return params


def test_the_directory_holds_the_model(tmp_path):
    directory = tmp_path / "new" / "target"
    params = exported(directory)
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = read_hf_config(directory)
    assert vars(config) | {"dropout": 0.1} == vars(CONFIG)
    jax.tree.map(np.testing.assert_array_equal, load_weights(directory, config), params)
    fields = json.loads((directory / "config.json").read_text())
    assert (fields["bos_token_id"], fields["pad_token_id"], fields["eos_token_id"]) == (1, 0, None)
    assert fields["max_position_embeddings"] == 1 + 3 * 6
    assert Tokenizer.from_file(str(directory / "tokenizer.json")).encode("<a_1>").ids == [1, 3]
    assert [path.name for path in directory.parent.iterdir()] == ["target"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="exists and is not empty"):
        exported(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ExportError, match="cannot be written"):
        exported(tmp_path / "notes.txt" / "target")


def test_an_export_that_was_cut_off_is_made_again(tmp_path):
    (tmp_path / ".target.partial").mkdir()
    (tmp_path / ".target.partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "target").mkdir()
    params = exported(tmp_path / "target", dtype="bfloat16")
    loaded = load_weights(tmp_path / "target", CONFIG)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), loaded, params)


def test_a_base_lends_its_tokenizer(tmp_path):
    base, catalog = tmp_path / "base", CATALOG.behind(6, 2)
    base.mkdir()
    words_tokenizer().save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    config = dataclasses.replace(CONFIG, vocab_size=catalog.vocab_size)
    export_hf(tmp_path / "out", config, wide_params(config, 0), catalog, history=5, dtype="float32", base=base)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["bos_token_id"] == 2
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("the <a_1><b_0>").ids == [3, 7, 8]
    assert (tmp_path / "out" / "tokenizer_config.json").read_text() == (base / "tokenizer_config.json").read_text()
