"""Fields of published configs: harmless ones are read past, harmful ones are refused by name."""

import pytest

from atspeed_jax.models.hf_fields import FULL, field_problems

SIZES = {
    "vocab_size": 38,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
QWEN = {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 21}
HARMLESS = {
    "llama of unsloth": {
        "model_type": "llama",
        "unsloth_version": "2025.1",
        "unsloth_fixed": True,
        "_attn_implementation_autoset": True,
        "pad_token_id": 3,
    },
    "smollm": {
        "model_type": "llama",
        "is_llama_config": True,
        "rope_interleaved": False,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
        "rope_scaling": None,
        "pretraining_tp": 1,
    },
    "of transformers 4": {
        "model_type": "llama",
        "keys_to_ignore_at_inference": ["past_key_values"],
        "torchscript": False,
        "pruned_heads": {},
        "use_cache": True,
        "sliding_window": None,
        "layer_types": [FULL, FULL],
        "do_sample": True,
        "repetition_penalty": 1.05,
        "add_cross_attention": False,
        "quantization_config": None,
    },
    "qwen2": {"model_type": "qwen2", "use_mrope": False, **QWEN},
    "qwen2 with a window from a layer on that it lacks": {"model_type": "qwen2", **QWEN, "use_sliding_window": True},
    "qwen3": {"model_type": "qwen3", "attention_bias": False, "head_dim": 128, **QWEN, "layer_types": [FULL, FULL]},
    "qwen3 with a window no layer uses": {
        "model_type": "qwen3",
        **QWEN,
        "use_sliding_window": True,
        "max_window_layers": 0,
        "layer_types": [FULL, FULL],
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral with a window as long as its positions": {"model_type": "mistral", "sliding_window": 256},
}
WINDOWED = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
LLAMA = {"model_type": "llama"}
HARMFUL = {
    "sliding_window=64 is not supported": LLAMA | {"sliding_window": 64},
    "sliding_window=4096 (the default) is not supported": {"model_type": "mistral", "max_position_embeddings": 32768},
    "sliding_window=128 is not supported": {"model_type": "mistral", "sliding_window": 128},
    "sliding_window='x' is not supported": {"model_type": "mistral", "sliding_window": "x"},
    "sliding_window=64 ": {"model_type": "qwen2", **WINDOWED},
    "no prompt is longer than the window": {"model_type": "qwen3", **WINDOWED},
    "layer_types=['full_attention', 'sliding_attention'] is not supported": {
        "model_type": "qwen3",
        "layer_types": [FULL, "sliding_attention"],
    },
    "layer_types='full_attention' is not supported": LLAMA | {"layer_types": FULL},
    "layer_types has 1 entries, expected num_hidden_layers=2": LLAMA | {"layer_types": [FULL]},
    "pruned_heads={'0': [1]} is not supported, only {}": LLAMA | {"pruned_heads": {"0": [1]}},
    "quantization_config={'bits': 4} is not supported: a quantized checkpoint": LLAMA
    | {"quantization_config": {"bits": 4}},
    "num_local_experts=8 is not supported: a mixture of experts": LLAMA | {"num_local_experts": 8},
    "attention_bias=True is not supported, only by llama and qwen3": {
        "model_type": "mistral",
        "sliding_window": None,
        "attention_bias": True,
    },
    "attention_bias='yes', expected true or false": LLAMA | {"attention_bias": "yes"},
    "use_mrope=True is not supported, only False": {"model_type": "qwen2", "use_mrope": True},
    "field final_logit_softcapping=30.0 is not known; if it changes nothing": LLAMA | {"final_logit_softcapping": 30.0},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_fields_are_read_past(name):
    assert field_problems(SIZES | HARMLESS[name]) == []


@pytest.mark.parametrize("message", HARMFUL)
def test_harmful_fields_are_refused_by_name(message):
    (found,) = field_problems(SIZES | HARMFUL[message])
    assert message in found
