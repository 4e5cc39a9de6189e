"""Reads and writes config.json of a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from atspeed_jax.models.conversion import how_to_convert
from atspeed_jax.models.hf_fields import (
    FIXED,
    OPTIONAL_SIZES,
    SIZES,
    describe_type,
    field_problems,
    has_attention_bias,
    is_number,
)
from atspeed_jax.models.llama_config import MODEL_TYPES, WITH_ATTENTION_BIAS, LlamaConfig
from atspeed_jax.models.rotary import RopeScalingConfig

CONFIG_FILE = "config.json"
# Model type -> the class that transformers loads.
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Model type -> fields of parts that our model lacks. Where sliding_window is absent,
# transformers gives a Mistral a window.
SWITCHED_OFF = {
    "llama": {"mlp_bias": False},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False, "sliding_window": None},
    "qwen3": {"use_sliding_window": False, "sliding_window": None},
}
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
      directory: of a Hugging Face model of a type in MODEL_TYPES.
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
        remedy = how_to_convert(Path(directory)) or "give the directory of a Hugging Face model"
        raise HFConfigError(f"there is no {path}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise HFConfigError(f"{path} cannot be read ({error}); expected the JSON that transformers writes") from error
    if not isinstance(raw, dict):
        raise HFConfigError(f"{path} holds a {type(raw).__name__}, expected the JSON object that transformers writes")
    kind = raw.get("model_type", "nothing")
    if kind not in MODEL_TYPES:
        raise HFConfigError(f"{path} is of architecture {describe_type(kind)}")
    problems = field_problems(raw)
    theta, scaling = _rope(raw, problems)
    if problems:
        raise HFConfigError(f"{path} is of no {kind} that can be read: " + "; ".join(problems))
    sizes = {ours: raw[theirs] for ours, theirs in SIZES.items()}
    optional = {name: raw.get(name, absent[kind]) for name, absent in OPTIONAL_SIZES.items()}
    try:
        return LlamaConfig(
            **sizes,
            kv_heads=optional["num_key_value_heads"] or sizes["heads"],
            head_dim=optional["head_dim"] or sizes["hidden_size"] // sizes["heads"],
            rope_theta=float(theta),
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
            dropout=0.0,
            dtype=cast(Any, dtype),
            remat=remat,
            rope_scaling=scaling,
            model_type=kind,
            attention_bias=has_attention_bias(raw),
        )
    except ValueError as error:
        raise HFConfigError(f"{path}: {error}") from error


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
    problems.extend(f"rope_theta={value!r}, expected a number above 0" for value in thetas if not is_number(value))
    bases = {value for value in thetas if is_number(value)}
    if len(bases) > 1:
        problems.append(f"rope_theta has two values, {sorted(bases)}")
    theta = next(iter(bases), 10_000.0)
    kind = given.pop("rope_type", None) or given.get("type") or "default"
    given.pop("type", None)
    if given.get("partial_rotary_factor") in (1.0, None):
        given.pop("partial_rotary_factor", None)
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
        if name in given and not is_number(given[name])
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
        "architectures": [CLASSES[config.model_type]],
        "model_type": config.model_type,
        **{name: FIXED[name] for name in ("hidden_act", "attention_dropout")},
        **({"attention_bias": config.attention_bias} if config.model_type in WITH_ATTENTION_BIAS else {}),
        **SWITCHED_OFF[config.model_type],
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
