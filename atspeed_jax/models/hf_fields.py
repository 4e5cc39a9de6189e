"""The fields of a config.json: understood, harmless, or an error.

A field is understood, or known not to change what a forward pass computes, or an error.
A field that is guessed at would give a model that runs and is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from atspeed_jax.models.llama_config import MODEL_TYPES, WITH_ATTENTION_BIAS
from atspeed_jax.utils.ranges import shown

# Our name of a size -> Hugging Face's.
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}
# Optional size -> model type -> what transformers takes where the field is absent. None:
# all heads, or the width of the model divided by them.
OPTIONAL_SIZES = {
    "num_key_value_heads": {"llama": None, "mistral": 8, "qwen2": 32, "qwen3": 32},
    "head_dim": {"llama": None, "mistral": None, "qwen2": None, "qwen3": 128},
}
OPTIONAL = frozenset(
    (
        *("rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "attention_bias"),
        *("layer_types", "sliding_window", "use_sliding_window", "max_window_layers", *OPTIONAL_SIZES),
    )
)
# Fields that have one value only in these models; they may be absent or null.
FIXED = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "use_mrope": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
# Fields that ask for another model, unless they hold nothing -> what they ask for.
REFUSED = {
    "quantization_config": "a quantized checkpoint: take the model that is not quantized, or dequantize it",
    "compression_config": "a quantized checkpoint: take the model that is not quantized",
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size"), "a mixture of experts"
    ),
}
# Fields that do not change the forward pass.
NEUTRAL = frozenset(
    (
        "model_type",
        "_name_or_path",
        "_commit_hash",
        "architectures",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "dtype",
        "torch_dtype",
        "initializer_range",
        "max_position_embeddings",
        "max_sequence_length",
        "model_max_length",
        "pretraining_tp",
        "use_cache",
        "transformers_version",
        "tokenizer_class",
        "is_decoder",
        "is_llama_config",
        "id2label",
        "label2id",
        "problem_type",
        "finetuning_task",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "keys_to_ignore_at_inference",
        "torchscript",
        "use_bfloat16",
        "tf_legacy_loss",
        "cross_attention_hidden_size",
        "tie_encoder_decoder",
        "chunk_size_feed_forward",
        "task_specific_params",
        "prefix",
    )
)
# How `generate` of older transformers chose tokens. A decoder here chooses otherwise.
GENERATION = frozenset(
    (
        *("do_sample", "temperature", "top_k", "top_p", "typical_p", "num_beams", "num_beam_groups", "max_length"),
        *("min_length", "early_stopping", "length_penalty", "repetition_penalty", "diversity_penalty"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores"),
        *("return_dict_in_generate", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id"),
        *("suppress_tokens", "begin_suppress_tokens", "remove_invalid_values", "exponential_decay_length_penalty"),
    )
)
# Beginnings of names of fields that other programs write for themselves.
NEUTRAL_PREFIXES = ("unsloth_", "transformers.js", "_attn_implementation")
FULL = "full_attention"
# What transformers takes for absent fields. Mistral has a window unless the field is null.
WINDOW, WINDOW_LAYERS = {"llama": None, "mistral": 4096, "qwen2": 4096, "qwen3": 4096}, 28


def field_problems(raw: Mapping) -> list[str]:
    """Describes every wrong field, but for those of rope.

    Args:
      raw: the content of config.json, of a model type in MODEL_TYPES.
    """
    known = {*SIZES.values(), *OPTIONAL, *FIXED, *REFUSED, *NEUTRAL, *GENERATION}
    found = [
        f"field {name}={shown(raw[name])} is not known; if it changes nothing that the model computes, remove it"
        for name in raw
        if name not in known and not name.startswith(NEUTRAL_PREFIXES)
    ]
    found += [
        f"{name}={shown(raw[name])} is not supported, only {only!r}"
        for name, only in FIXED.items()
        if raw.get(name, only) not in (only, None)
    ]
    found += [f"{name}={shown(raw[name])} is not supported: {why}" for name, why in REFUSED.items() if raw.get(name)]
    for name in (*SIZES.values(), *(name for name in OPTIONAL_SIZES if raw.get(name) is not None)):
        if type(raw.get(name)) is not int or raw[name] < 1:
            found.append(f"{name}={shown(raw.get(name))}, expected an int of at least 1")
    if not is_number(raw.get("rms_norm_eps", 1e-6)):
        found.append(f"rms_norm_eps={shown(raw['rms_norm_eps'])}, expected a number above 0")
    for name in ("tie_word_embeddings", "attention_bias", "use_sliding_window"):
        if not isinstance(raw.get(name), bool | None):
            found.append(f"{name}={shown(raw[name])}, expected true or false")
    if raw.get("attention_bias") is True and not has_attention_bias(raw) and raw["model_type"] != "qwen2":
        found.append(f"attention_bias=True is not supported, only by {' and '.join(WITH_ATTENTION_BIAS)}")
    return found + list(_window_problems(raw))


def is_number(value) -> bool:
    """Whether a value is a finite number above 0."""
    return type(value) in (int, float) and 0 < value < math.inf


def has_attention_bias(raw: Mapping) -> bool:
    """Whether attention_bias says that the model has biases.

    transformers does not read the field in a Qwen2, whose query, key and value always
    have a bias. The stored tensors decide.
    """
    return bool(raw.get("attention_bias")) and raw["model_type"] in WITH_ATTENTION_BIAS


def _window_problems(raw: Mapping) -> Iterator[str]:
    """Describes what would limit attention to a window of tokens."""
    kind, types, layers = raw["model_type"], raw.get("layer_types"), raw.get("num_hidden_layers")
    if types is not None:
        if not isinstance(types, list) or any(one != FULL for one in types):
            yield f"layer_types={shown(types)} is not supported, only {FULL!r} in every layer"
            return
        if len(types) != layers:
            yield f"layer_types has {len(types)} entries, expected num_hidden_layers={shown(layers)}"
    window = raw.get("sliding_window", WINDOW[kind])
    if kind.startswith("qwen"):
        first = raw.get("max_window_layers", WINDOW_LAYERS)
        # transformers reads the window only if it is switched on, and then from this layer
        # on, unless layer_types says where.
        reached = type(first) is not int or type(layers) is not int or first < layers
        window = window if raw.get("use_sliding_window") and types is None and reached else None
    positions = raw.get("max_position_embeddings")
    if window is None or (type(window) is int and type(positions) is int and window >= positions):
        return
    given = f"sliding_window={shown(window)}" if "sliding_window" in raw else f"sliding_window={window} (the default)"
    yield (
        f"{given} is not supported: every token must attend to all tokens before it; if no prompt is longer than the "
        'window, write "sliding_window": null into config.json'
    )


def describe_type(kind) -> str:
    """Says why a model type is refused; a clause for an error message."""
    expected = f"expected one of {', '.join(map(repr, MODEL_TYPES))}"
    if isinstance(kind, str) and ("moe" in kind.lower() or kind == "mixtral"):
        return f"{kind!r}, a mixture of experts; {expected}"
    return f"{shown(kind)}; {expected}"
