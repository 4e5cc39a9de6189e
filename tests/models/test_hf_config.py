import dataclasses
import json

import pytest

from atspeed_jax.models.hf_config import HFConfigError, hf_config, read_hf_config
from atspeed_jax.models.rotary import RopeScalingConfig
from bases import BASE

LLAMA3 = RopeScalingConfig("llama3", 8.0, 1.0, 4.0, 8192)
CONFIG = dataclasses.replace(
    BASE,
    vocab_size=19,
    intermediate_size=20,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,
    rope_theta=100.0,
    norm_eps=1e-5,
)
LLAMA_68M = {  # the fields of its published config.json
    "_name_or_path": "facebook/opt-125m",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.28.1",
    "use_cache": True,
    "vocab_size": 32000,
}


def written(directory, fields):
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return directory


def fields_of(config=CONFIG):
    return hf_config(config, dtype="float32", max_positions=128, bos=1, eos=None, pad=0)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dataclasses.replace(CONFIG, tied_embeddings=True, kv_heads=4),
        dataclasses.replace(CONFIG, rope_scaling=LLAMA3),
        dataclasses.replace(CONFIG, rope_scaling=RopeScalingConfig("linear", 2.0)),
        dataclasses.replace(CONFIG, attention_bias=True),
        dataclasses.replace(CONFIG, model_type="mistral"),
        dataclasses.replace(CONFIG, model_type="qwen2"),
        dataclasses.replace(CONFIG, model_type="qwen3", attention_bias=True),
    ],
)
def test_what_is_written_is_read(tmp_path, config):
    assert read_hf_config(written(tmp_path, fields_of(config))) == config


def test_an_old_config_with_its_defaults(tmp_path):
    config = read_hf_config(written(tmp_path, LLAMA_68M), dtype="bfloat16", remat=True)
    assert (config.kv_heads, config.head_dim, config.rope_theta, config.rope_scaling) == (12, 64, 10_000.0, None)
    assert (config.layers, config.norm_eps, config.dtype, config.remat) == (2, 1e-6, "bfloat16", True)


def test_absent_sizes_are_those_of_transformers(tmp_path):
    """A Qwen3 has a head_dim that is not the width by the number of heads."""
    sizes = {"hidden_size": 1024, "num_attention_heads": 64, "max_position_embeddings": 4096}
    fields = {name: value for name, value in (LLAMA_68M | sizes).items() if name != "model_type"}
    for kind, wanted in {"llama": (64, 16), "mistral": (8, 16), "qwen2": (32, 16), "qwen3": (32, 128)}.items():
        config = read_hf_config(written(tmp_path, fields | {"model_type": kind}))
        assert (config.kv_heads, config.head_dim) == wanted, kind
        assert (config.model_type, config.qkv_bias, config.qk_norm) == (kind, kind == "qwen2", kind == "qwen3")
    both = {"num_key_value_heads": None, "head_dim": None, "model_type": "qwen2", "attention_bias": True}
    config = read_hf_config(written(tmp_path, fields | both))
    assert (config.kv_heads, config.head_dim, config.output_bias) == (64, 16, False)


def test_rope_as_transformers_5_writes_it(tmp_path):
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    fields = {name: value for name, value in fields_of().items() if not name.startswith("rope")}
    config = read_hf_config(written(tmp_path, fields | {"rope_parameters": scaling}))
    assert config == dataclasses.replace(CONFIG, rope_theta=5e5, rope_scaling=LLAMA3)
    default = {"rope_type": "default", "rope_theta": 100.0}
    assert read_hf_config(written(tmp_path, fields | {"rope_parameters": default})) == CONFIG


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"model_type": "gemma3_text"}, ["architecture 'gemma3_text'", "'llama', 'mistral', 'qwen2', 'qwen3'"]),
        ({"model_type": "qwen3_moe"}, ["'qwen3_moe', a mixture of experts"]),
        ({"model_type": "mixtral"}, ["'mixtral', a mixture of experts"]),
        ({"model_type": ["llama"]}, ["architecture ['llama']"]),
        ({"model_type": "mistral", "sliding_window": 64}, ["sliding_window=64 is not supported", "no mistral"]),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ({"hidden_act": "gelu"}, ["hidden_act='gelu'", "'silu'"]),
        ({"mlp_bias": True, "new_thing": 3}, ["mlp_bias=True", "new_thing=3"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"num_hidden_layers": None, "hidden_size": "16"}, ["num_hidden_layers=None", "hidden_size='16'"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["rope_type 'dynamic'", "'llama3'"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, ["low_freq_factor is missing"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, ["beta=1 is unknown"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, ["factor=0.5"]),
        ({"rope_scaling": {"factor": 2.0}}, ["factor=2.0 without a rope_type"]),
        ({"rope_parameters": {"rope_theta": 7.0}}, ["rope_theta has two values, [7.0, 100.0]"]),
        ({"rope_theta": [1], "hidden_act": "gelu"}, ["rope_theta=[1], expected a number", "hidden_act='gelu'"]),
        ({"rope_scaling": "linear"}, ["rope_scaling='linear', expected a JSON object"]),
        ({"rope_scaling": {"type": ["linear"]}}, ["rope_type ['linear'] is not supported"]),
        ({"rope_scaling": {"type": "linear", "factor": "8"}}, ["factor='8', expected a number above 0"]),
        ({"rope_scaling": {"type": "linear", "factor": None}}, ["factor=None, expected a number above 0"]),
        ({"rms_norm_eps": None}, ["rms_norm_eps=None, expected a number above 0"]),
        ({"rms_norm_eps": float("nan"), "head_dim": "6"}, ["rms_norm_eps=nan", "head_dim='6', expected an int"]),
        ({"num_key_value_heads": "8"}, ["num_key_value_heads='8', expected an int of at least 1"]),
        ({"num_key_value_heads": 0}, ["num_key_value_heads=0, expected an int of at least 1"]),
        ({"tie_word_embeddings": "false"}, ["tie_word_embeddings='false', expected true or false"]),
        ({"num_key_value_heads": 3}, ["kv_heads=3"]),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, change, messages):
    with pytest.raises(HFConfigError) as error:
        read_hf_config(written(tmp_path, fields_of() | change))
    for message in (*messages, "config.json"):
        assert message in str(error.value)


def test_no_config(tmp_path):
    with pytest.raises(HFConfigError, match=r"there is no .*config\.json"):
        read_hf_config(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(HFConfigError, match="cannot be read"):
        read_hf_config(tmp_path)
    with pytest.raises(HFConfigError, match="holds a list"):
        read_hf_config(written(tmp_path, []))
