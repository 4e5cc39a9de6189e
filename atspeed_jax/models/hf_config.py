"""Reads and writes config.json of a Hugging Face Llama directory.

A field is understood, or known not to change what a forward pass computes, or an error.
A field that is guessed at would give a model that runs and is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.rotary import RopeScalingConfig

CONFIG_FILE = "config.json"

# Our name of a size -> Hugging Face's.
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}
OPTIONAL_SIZES = ("num_key_value_heads", "head_dim")
OPTIONAL = frozenset(
    ("rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", *OPTIONAL_SIZES)
)
# Fields that have one value only in this architecture; they may be absent.
FIXED = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "is_encoder_decoder": False,
}
# Fields that do not change the forward pass.
NEUTRAL = frozenset(
    (
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "dtype",
        "torch_dtype",
        "initializer_range",
        "max_position_embeddings",
        "max_sequence_length",
        "pretraining_tp",
        "use_cache",
        "transformers_version",
        "tokenizer_class",
        "id2label",
        "label2id",
        "problem_type",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "chunk_size_feed_forward",
        "task_specific_params",
    )
)
# Parameters of each kind of rope scaling: our name -> Hugging Face's.
SCALING = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_positions": "original_max_position_embeddings",
    },
}


class HFConfigError(ValueError):
    """A model directory or a config.json that cannot be used."""


def read_hf_config(directory: Path, *, dtype: str = "float32", remat: bool = False) -> LlamaConfig:
    """Reads the config of the model in a directory.

    Args:
      directory: of a Hugging Face Llama.
      dtype: see `LlamaConfig`.
      remat: see `LlamaConfig`.

    Returns:
      The config, without dropout.

    Raises:
      HFConfigError: config.json cannot be read, is of another architecture, lacks a
        size or has a field that this model does not have. One error names all wrong
        fields.
    """
    path = Path(directory) / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HFConfigError(f"there is no {path}; give the directory of a Hugging Face Llama model") from None
    except (OSError, ValueError) as error:
        raise HFConfigError(f"{path} cannot be read ({error}); expected the JSON that transformers writes") from error
    if not isinstance(raw, dict):
        raise HFConfigError(f"{path} holds a {type(raw).__name__}, expected the JSON object that transformers writes")
    kind = raw.get("model_type", "nothing")
    if kind != "llama":
        raise HFConfigError(f"{path} is of architecture {kind!r}; expected 'llama'")
    problems = _problems(raw)
    theta, scaling = _rope(raw, problems)
    if problems:
        raise HFConfigError(f"{path} is not a Llama of this kind: " + "; ".join(problems))
    sizes = {ours: raw[theirs] for ours, theirs in SIZES.items()}
    try:
        return LlamaConfig(
            **sizes,
            kv_heads=raw.get("num_key_value_heads") or sizes["heads"],
            head_dim=raw.get("head_dim") or sizes["hidden_size"] // sizes["heads"],
            rope_theta=float(theta),
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
            dropout=0.0,
            dtype=cast(Any, dtype),
            remat=remat,
            rope_scaling=scaling,
        )
    except ValueError as error:
        raise HFConfigError(f"{path}: {error}") from error


def _problems(raw: Mapping) -> list[str]:
    """Describes every wrong field, but for those of rope."""
    known = {*SIZES.values(), *OPTIONAL, *FIXED, *NEUTRAL}
    found = [f"field {name}={raw[name]!r} is not supported" for name in raw if name not in known]
    found += [
        f"{name}={raw[name]!r} is not supported, only {only!r}"
        for name, only in FIXED.items()
        if raw.get(name, only) != only
    ]
    for name in (*SIZES.values(), *(name for name in OPTIONAL_SIZES if raw.get(name) is not None)):
        if type(raw.get(name)) is not int or raw[name] < 1:
            found.append(f"{name}={raw.get(name)!r}, expected an int of at least 1")
    if not _is_number(raw.get("rms_norm_eps", 1e-6)):
        found.append(f"rms_norm_eps={raw['rms_norm_eps']!r}, expected a number above 0")
    if not isinstance(raw.get("tie_word_embeddings"), bool | None):
        found.append(f"tie_word_embeddings={raw['tie_word_embeddings']!r}, expected true or false")
    return found


def _is_number(value) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _rope(raw: Mapping, problems: list[str]) -> tuple[float, RopeScalingConfig | None]:
    """Reads base and scaling of the rotary positions; adds to `problems`.

    transformers 4 writes rope_theta and rope_scaling, transformers 5 rope_parameters.
    """
    given: dict = {}
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(fields := raw.get(name) or {}, dict):
            given |= fields
        else:
            problems.append(f"{name}={fields!r}, expected a JSON object")
    thetas = [value for value in (raw.get("rope_theta"), given.pop("rope_theta", None)) if value is not None]
    problems.extend(f"rope_theta={value!r}, expected a number above 0" for value in thetas if not _is_number(value))
    bases = {value for value in thetas if _is_number(value)}
    if len(bases) > 1:
        problems.append(f"rope_theta has two values, {sorted(bases)}")
    theta = next(iter(bases), 10_000.0)
    kind = given.pop("rope_type", None) or given.get("type") or "default"
    given.pop("type", None)
    if kind == "default":
        problems.extend(f"rope parameter {name}={value!r} without a rope_type" for name, value in given.items())
        return theta, None
    if not isinstance(kind, str) or kind not in SCALING:
        problems.append(f"rope_type {kind!r} is not supported, only 'default', {', '.join(map(repr, SCALING))}")
        return theta, None
    names = SCALING[kind]
    problems.extend(f"rope parameter {name} is missing" for name in names.values() if name not in given)
    problems.extend(f"rope parameter {name}={given[name]!r} is unknown" for name in given.keys() - names.values())
    problems.extend(
        f"rope parameter {name}={given[name]!r}, expected a number above 0"
        for name in names.values()
        if name in given and not _is_number(given[name])
    )
    if problems:
        return theta, None
    try:
        return theta, RopeScalingConfig(cast(Any, kind), **{ours: given[theirs] for ours, theirs in names.items()})
    except ValueError as error:
        problems.append(str(error))
        return theta, None


def hf_config(
    config: LlamaConfig, *, dtype: str, max_positions: int, bos: int, eos: int | Sequence[int] | None, pad: int
) -> dict:
    """Makes the content of config.json, which transformers 4 and 5 read.

    Args:
      config: of the model.
      dtype: in which the tensors are stored.
      max_positions: longest sequence of the model.
      bos: token that begins a sequence.
      eos: token or tokens that end a sequence, if any.
      pad: token of padding.
    """
    scaling = None
    if config.rope_scaling is not None:
        names = SCALING[config.rope_scaling.kind]
        parameters = {theirs: getattr(config.rope_scaling, ours) for ours, theirs in names.items()}
        scaling = {"rope_type": config.rope_scaling.kind, **parameters}
    return {
        "architectures": ["LlamaForCausalLM"],
        **{
            name: FIXED[name]
            for name in ("model_type", "hidden_act", "attention_bias", "mlp_bias", "attention_dropout")
        },
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": max_positions,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": dtype,
    }
