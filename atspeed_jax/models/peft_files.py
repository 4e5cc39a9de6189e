"""Adapters in the files of PEFT: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.models.lora import TARGETS, LoraConfig, LoraError, map_pairs, merge_adapter
from atspeed_jax.utils.files import write_json
from atspeed_jax.utils.ranges import RangeError

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_EMBEDDING, _HEAD = _PREFIX + "model.embed_tokens.weight", _PREFIX + "lm_head.weight"
# Fields of adapter_config.json that have one value only here; they may be absent.
FIXED = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "modules_to_save": None,
    "exclude_modules": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "layer_replication": None,
}
# Fields that change what is computed if they say anything. They are newer than many
# readers, so they are never written.
REFUSED = (
    "alora_invocation_tokens",
    "use_qalora",
    "lora_bias",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
PLAIN_STARTS = (True, False, None, "gaussian")  # of init_lora_weights; others change the base too


def _names(lora: LoraConfig, layers: int) -> Iterator[tuple[str, str, int, str]]:
    """Lists group, our name, layer and PEFT's name of every adapted matrix."""
    for name in lora.targets:
        group, ours, module = TARGETS[name]
        for layer in range(layers):
            yield group, ours, layer, f"{_PREFIX}model.layers.{layer}.{module}.{name}"


def save_adapter(
    directory: Path,
    model: LlamaConfig,
    lora: LoraConfig,
    params: Mapping,
    adapter: Mapping,
    base: str,
    *,
    rows: np.ndarray | None = None,
) -> None:
    """Writes an adapter as PEFT does.

    With item rows the whole embedding (and head) of the larger vocabulary is stored, as
    PEFT expects. Whoever reads the files resizes the base with resize_token_embeddings
    first.

    Args:
      directory: made if absent.
      model: of the base.
      lora: shape of the adapter.
      params: parameters of the base.
      adapter: what was trained.
      base: name or directory of the pretrained model.
      rows: see `weights.save_weights`.

    Raises:
      LoraError: the directory has an adapter already.
    """
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if (directory / file).exists():
            raise LoraError(f"{directory} already has {file}; give a new directory, or delete it")
    tensors = {}
    for group, ours, layer, theirs in _names(lora, model.layers):
        for name, part in (("a", "A"), ("b", "B")):
            value = np.asarray(adapter["layers"][group][ours][name][layer], np.float32)
            tensors[f"{theirs}.lora_{part}.weight"] = np.ascontiguousarray(value.T)
    merged = merge_adapter(params, {"layers": {}} | {k: v for k, v in adapter.items() if k != "layers"}, None)
    tables = {_EMBEDDING: merged["embedding"]} if "item_embedding" in adapter else {}
    tables |= {_HEAD: merged["head"]["kernel"].T} if "item_head" in adapter else {}
    for name, table in tables.items():
        order = slice(None) if rows is None else np.argsort(rows)
        tensors[name] = np.ascontiguousarray(np.asarray(table, np.float32)[order])
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / WEIGHTS_FILE, {"format": "pt"})
    fields = {"base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True, **FIXED}
    fields |= {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    write_json(directory / CONFIG_FILE, fields | {"target_modules": list(lora.targets)})


def load_adapter(directory: Path, model: LlamaConfig, params: Mapping) -> tuple[LoraConfig, dict[str, Any]]:
    """Reads an adapter from PEFT's files.

    Args:
      directory: that PEFT or `save_adapter` wrote.
      model: of the base.
      params: parameters of the base.

    Returns:
      The adapter's shape and the adapter.

    Raises:
      LoraError: files are missing or damaged, ask for what is not supported, or fit
        another base. One error names all problems with the tensors.
    """
    lora, tensors = _read_config(directory), _read_tensors(directory)
    problems: list[str] = []

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray:
        value = tensors.pop(name, None)
        if value is None:
            problems.append(f"{name} is missing")
        elif value.shape != shape:
            problems.append(
                f"{name} has shape {list(value.shape)}, expected {list(shape)}: an adapter of another base?"
            )
        return np.zeros(shape, np.float32) if value is None or value.shape != shape else np.asarray(value, np.float32)

    layers: dict[str, Any] = {}
    for group, ours, _, theirs in _names(lora, model.layers):
        _, inputs, outputs = params["layers"][group][ours]["kernel"].shape
        pair = layers.setdefault(group, {}).setdefault(ours, {"a": [], "b": []})
        pair["a"].append(take(f"{theirs}.lora_A.weight", (lora.rank, inputs)).T)
        pair["b"].append(take(f"{theirs}.lora_B.weight", (outputs, lora.rank)).T)
    stacked = map_pairs(layers, lambda pair: {name: jnp.asarray(np.stack(parts)) for name, parts in pair.items()})
    adapter = {"layers": stacked} | _item_rows(tensors, params, problems)
    problems += [f"{name} is no tensor of this adapter" for name in tensors]
    if problems:
        raise LoraError(f"{directory / WEIGHTS_FILE} does not fit this model: " + "; ".join(problems[:20]))
    return lora, adapter


def _item_rows(tensors: dict[str, np.ndarray], params: Mapping, problems: list[str]) -> dict[str, Any]:
    """Takes the rows of item tokens out of `tensors`; adds to `problems`.

    PEFT stores whole tables, which must begin with the rows of the base.
    """
    rows = {}
    # PEFT stores a tied head although it is the embedding.
    if "head" not in params and _HEAD in tensors:
        head, table = tensors.pop(_HEAD), tensors.get(_EMBEDDING)
        if table is None or not np.array_equal(head, table):
            problems.append(f"{_HEAD} is not {_EMBEDDING}, to which this model ties it")
    known = {_EMBEDDING: ("item_embedding", params["embedding"])}
    if "head" in params:
        known[_HEAD] = ("item_head", params["head"]["kernel"].T)
    for name, (ours, base) in known.items():
        if name not in tensors:
            continue
        table, size = tensors.pop(name), len(base)
        if table.shape[1:] != base.shape[1:] or len(table) <= size or not np.allclose(table[:size], base, atol=1e-3):
            problems.append(f"{name} {list(table.shape)} does not begin with the base's {size} rows: another base?")
            continue
        rows[ours] = jnp.asarray(table[size:], jnp.float32)
    if "item_head" in rows:
        rows["item_head"] = rows["item_head"].T
    return rows


def _read_config(directory: Path) -> LoraConfig:
    path = directory / CONFIG_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoraError(f"{path} cannot be read ({error}); expected the JSON that PEFT writes") from error
    if not isinstance(fields, dict):
        raise LoraError(f"{path} holds a {type(fields).__name__}, expected the JSON object that PEFT writes")
    wrong = [f"{name}={fields[name]!r}" for name, only in FIXED.items() if fields.get(name) not in (only, None, {}, [])]
    wrong += [f"{name}={fields[name]!r}" for name in REFUSED if fields.get(name)]
    if (start := fields.get("init_lora_weights")) not in PLAIN_STARTS:
        wrong.append(f"init_lora_weights={start!r}")
    if wrong:
        raise LoraError(f"{path} asks for what is not supported: {', '.join(wrong)}")
    try:
        targets = tuple(sorted(fields["target_modules"], key=list(TARGETS).index))
        return LoraConfig(fields["r"], float(fields["lora_alpha"]), float(fields.get("lora_dropout", 0)), targets)
    except (KeyError, TypeError) as error:
        raise LoraError(
            f"{path} lacks or spoils a field ({error!r}); expected r, lora_alpha, target_modules"
        ) from error
    except RangeError as error:
        raise LoraError(f"{path}: {error}") from error
    except ValueError as error:
        raise LoraError(f"{path}: {error}; known modules are {', '.join(TARGETS)}") from error


def _read_tensors(directory: Path) -> dict[str, np.ndarray]:
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise LoraError(f"there is no {path}; give a directory that PEFT, or launch.export in the checkout, wrote")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{path} is damaged or cut off ({error})") from error
