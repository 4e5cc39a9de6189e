import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters import ITEMS, LORA, MODEL, TIED, case
from atspeed_jax.models.lora import LoraError
from atspeed_jax.models.peft_files import load_adapter, save_adapter
from numpy_llama import wide_params


@pytest.mark.parametrize("model", [MODEL, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("items", [0, ITEMS])
def test_what_is_saved_is_loaded(tmp_path, model, items):
    params, adapter = case(model, items=items)
    save_adapter(tmp_path / "a", model, LORA, params, adapter, "some/base")
    lora, loaded = load_adapter(tmp_path / "a", model, params)
    assert lora == LORA
    assert jax.tree.structure(loaded) == jax.tree.structure(adapter)
    jax.tree.map(np.testing.assert_array_equal, loaded, adapter)
    fields = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == "some/base"
    assert fields["peft_type"] == "LORA"
    with pytest.raises(LoraError, match=r"already has adapter_config\.json"):
        save_adapter(tmp_path / "a", model, LORA, params, adapter, "some/base")


@pytest.fixture
def saved(tmp_path):
    params, adapter = case()
    save_adapter(tmp_path, MODEL, LORA, params, adapter, "base")
    return tmp_path, params


def refused(directory, params, model=MODEL):
    with pytest.raises(LoraError) as error:
        load_adapter(directory, model, params)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"lora_bias": True, "use_qalora": False}, "is not supported: lora_bias=True"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens=[1, 2]"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config={'top_k': 2}"),
        ({"target_modules": ["w_proj"]}, "known modules are q_proj"),
        ({"r": "x"}, "rank='x': expected a whole number"),
        ({"r": 0}, "rank=0: expected a whole number, at least 1"),
        ({"lora_alpha": None}, "lacks or spoils a field"),
    ],
)
def test_configs_of_other_adapters(saved, change, message):
    directory, params = saved
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in refused(directory, params)


def test_an_adapter_of_another_base(saved):
    directory, _params = saved
    other = jax.tree.map(jnp.asarray, wide_params(MODEL, seed=9))
    assert "does not begin with the base's 13 rows" in refused(directory, other)
    wide = dataclasses.replace(MODEL, intermediate_size=16)
    message = refused(directory, jax.tree.map(jnp.asarray, wide_params(wide, seed=0)), wide)
    assert "mlp.down_proj.lora_A.weight has shape [3, 12], expected [3, 16]: an adapter of another base?" in message
    deeper = dataclasses.replace(MODEL, layers=3)
    message = refused(directory, jax.tree.map(jnp.asarray, wide_params(deeper, seed=0)), deeper)
    assert "layers.2.self_attn.q_proj.lora_A.weight is missing" in message


@pytest.mark.parametrize("other", [False, True])
def test_a_tied_head_may_be_stored_twice(tmp_path, other):
    """As PEFT does with an enlarged vocabulary; another one than the embedding is not this model's."""
    params, adapter = case(TIED)
    save_adapter(tmp_path, TIED, LORA, params, adapter, "base")
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    head = tensors["base_model.model.model.embed_tokens.weight"] + float(other)
    save_file(tensors | {"base_model.model.lm_head.weight": head}, path)
    if other:
        assert "lm_head.weight is not base_model.model.model.embed_tokens.weight" in refused(tmp_path, params, TIED)
    else:
        jax.tree.map(np.testing.assert_array_equal, load_adapter(tmp_path, TIED, params)[1], adapter)


def test_tensors_that_do_not_belong_and_files_that_are_not_whole(saved):
    directory, params = saved
    path = directory / "adapter_model.safetensors"
    save_file(load_file(path) | {"extra": np.zeros(1, np.float32)}, path)
    assert "extra is no tensor of this adapter" in refused(directory, params)
    path.write_bytes(path.read_bytes()[:-4])
    assert "damaged or cut off" in refused(directory, params)
    path.unlink()
    assert "there is no" in refused(directory, params)
    (directory / "adapter_config.json").write_text("{")
    assert "cannot be read" in refused(directory, params)
    (directory / "adapter_config.json").write_text("[]")
    assert "adapter_config.json holds a list, expected the JSON object" in refused(directory, params)
