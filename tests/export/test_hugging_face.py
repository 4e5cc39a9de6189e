import dataclasses
import json

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer

from atspeed_jax.export.hugging_face import export_hf
from atspeed_jax.items.tokenizer import TokenizerError
from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.pretrained import PretrainedConfig, describe_pretrained
from atspeed_jax.models.weights import load_weights
from bases import CATALOG, CONFIG, write_base
from numpy_llama import wide_params


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


def of_base(directory, **fields):
    """(base, catalog behind it) of a Hugging Face directory with these fields in its config.json."""
    write_base(directory, **fields)
    base = describe_pretrained(PretrainedConfig(str(directory), None))
    return base, CATALOG.behind(base.model.vocab_size, base.bos)


def exported_of(base, catalog, directory):
    config = dataclasses.replace(CONFIG, vocab_size=catalog.vocab_size)
    export_hf(directory, config, wide_params(config, 0), catalog, history=5, dtype="float32", base=base)
    return {path.name: json.loads(path.read_text()) for path in directory.glob("*.json")}


def test_a_base_lends_its_tokenizer(tmp_path):
    base, catalog = of_base(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>"}'
    )
    (tmp_path / "base" / "special_tokens_map.json").write_text('{"eos_token": "</s>", "bos_token": "other"}')
    found = exported_of(base, catalog, tmp_path / "out")
    assert found["config.json"]["bos_token_id"] == 2
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("the <a_1><b_0>").ids == [2, 3, 7, 8]  # its BOS first
    expected = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    assert found["tokenizer_config.json"] == expected


def test_settings_of_a_tokenizer_that_is_not_there_are_left_out(tmp_path):
    base, catalog = of_base(tmp_path / "base", words=())
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"")
    config, how = dataclasses.replace(CONFIG, vocab_size=catalog.vocab_size), {"history": 5, "dtype": "float32"}
    note = export_hf(tmp_path / "out", config, wide_params(config, 0), catalog, **how, base=base)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["config.json", "model.safetensors"]
    assert "without tokenizer.json, which the base lacks" in note
    assert "save_pretrained" in note


@pytest.mark.parametrize("text", ["{", "[]"])
def test_settings_of_a_tokenizer_that_cannot_be_read(tmp_path, text):
    base, catalog = of_base(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text(text)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json (cannot be read|holds a list)"):
        exported_of(base, catalog, tmp_path / "out")


@pytest.mark.parametrize(("given", "eos"), [(4, 4), ([4, 5], [4, 5]), (None, None)])
def test_what_a_base_says_of_its_texts_is_said_on(tmp_path, given, eos):
    base, catalog = of_base(tmp_path / "base", eos_token_id=given, max_position_embeddings=2048)
    fields = exported_of(base, catalog, tmp_path / "out")["config.json"]
    assert (fields["eos_token_id"], fields["max_position_embeddings"]) == (eos, 2048)
    unknown = dataclasses.replace(base, positions=None)
    assert exported_of(unknown, catalog, tmp_path / "other")["config.json"]["max_position_embeddings"] == 1 + 3 * 6
