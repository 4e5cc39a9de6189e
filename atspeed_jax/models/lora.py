"""Low-rank adapters and item rows: what is trained of a pretrained Llama, merged or kept apart (Hu et al. 2021).

An *adapter* is a tree like the parameters' that holds, beside each adapted matrix W [in, out], a [in, r] and b [r, out]
for W + (alpha / r) a b, and the embedding and head rows of tokens that the pretrained vocabulary lacks: those of item
codes. Files are those of PEFT: adapter_config.json and adapter_model.safetensors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.utils.files import write_json
from atspeed_jax.utils.ranges import PartialShare, Range, RangeError, check_ranges

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# Their name of a matrix -> ours, and where it lies in their modules.
TARGETS = {
    "q_proj": ("attention", "query", "self_attn"),
    "k_proj": ("attention", "key", "self_attn"),
    "v_proj": ("attention", "value", "self_attn"),
    "o_proj": ("attention", "output", "self_attn"),
    "gate_proj": ("mlp", "gate", "mlp"),
    "up_proj": ("mlp", "up", "mlp"),
    "down_proj": ("mlp", "down", "mlp"),
}
_PREFIX = "base_model.model."
_EMBEDDING, _HEAD = _PREFIX + "model.embed_tokens.weight", _PREFIX + "lm_head.weight"
# Fields of adapter_config.json that this adapter has in one value only (or absent).
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
# Further fields that change what is computed, wherever they say anything; newer than many readers, so never written.
REFUSED = (
    "alora_invocation_tokens",
    "use_qalora",
    "lora_bias",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
PLAIN_STARTS = (True, False, None, "gaussian")  # of init_lora_weights; others change the base's weights too


class LoraError(ValueError):
    """An adapter that cannot be made, or files of one that do not fit the model."""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """rank: r. alpha: the branch is scaled by alpha / r. dropout: on what the branches read. targets: adapted matrices,
    by their names in Hugging Face (TARGETS).

    Raises LoraError for a target that no module has, RangeError on a number outside its range.
    """

    rank: Annotated[int, Range(1, 65_536)]
    alpha: Annotated[float, Range(0, 1e6, "(]")]
    dropout: PartialShare
    targets: tuple[str, ...]

    def __post_init__(self):
        check_ranges(self)
        if stray := [name for name in self.targets if name not in TARGETS]:
            raise LoraError(f"target {stray[0]!r} matches no module; expected some of {', '.join(TARGETS)}")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise LoraError(f"targets={self.targets}: name at least one module, each once")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def init_adapter(model: LlamaConfig, lora: LoraConfig, params: Mapping, items: int, key: jax.Array) -> dict[str, Any]:
    """A new adapter that changes nothing yet, with rows for `items` tokens behind the vocabulary.

    a is uniform in +-1/sqrt(in) and b zero, as in PEFT.
    """
    layers: dict[str, Any] = {}
    for number, name in enumerate(lora.targets):
        group, ours, _ = TARGETS[name]
        depth, reads, writes = params["layers"][group][ours]["kernel"].shape
        bound = reads**-0.5
        a = jax.random.uniform(jax.random.fold_in(key, number), (depth, reads, lora.rank), jnp.float32, -bound, bound)
        layers.setdefault(group, {})[ours] = {"a": a, "b": jnp.zeros((depth, lora.rank, writes))}
    return {"layers": layers} | item_rows(model, params, items, jax.random.fold_in(key, len(TARGETS)))


def item_rows(model: LlamaConfig, params: Mapping, items: int, key: jax.Array) -> dict[str, Any]:
    """ "item_embedding" [items, D] and, with an untied head, "item_head" [D, items], float32; nothing for no items.

    A row is the mean of the pretrained ones plus noise of their own spread: a new token that begins far from all others
    upsets the model.
    """
    if not items:
        return {}

    def rows(known, key):
        known = known.astype(jnp.float32)
        return known.mean(0) + known.std(0) * jax.random.normal(key, (items, known.shape[1]))

    embedding, head = jax.random.split(key)
    own = {"item_embedding": rows(params["embedding"], embedding)}
    if not model.tied_embeddings:
        own["item_head"] = rows(params["head"]["kernel"].T, head).T
    return own


def scaled(adapter: Mapping, lora: LoraConfig, tied: bool) -> dict[str, Any]:
    """The adapter as `llama.forward` reads it: b times alpha / r; a tied head has the rows of the embedding."""
    layers = _each(adapter["layers"], lambda pair: pair | {"b": pair["b"] * lora.scale})
    read = dict(adapter) | {"layers": layers}
    if tied and "item_embedding" in adapter:
        read["item_head"] = adapter["item_embedding"].T
    return read


def merge(params: Mapping, adapter: Mapping, lora: LoraConfig | None) -> dict[str, Any]:
    """Parameters of a plain Llama that computes what base and adapter do: for decoding and export.

    Its vocabulary has the item tokens behind the base's (`merged_model`). lora may be None for rows alone.
    """
    layers = {group: dict(own) for group, own in params["layers"].items()}
    for group, own in adapter["layers"].items():
        for name, ab in own.items():
            kernel = layers[group][name]["kernel"]
            assert lora is not None, "layers of an adapter have a LoraConfig"
            branch = jnp.matmul(lora.scale * ab["a"], ab["b"], precision=jax.lax.Precision.HIGHEST)
            layers[group][name] = {"kernel": kernel + branch.astype(kernel.dtype)}
    merged = dict(params) | {"layers": layers}
    if "item_embedding" in adapter:
        merged["embedding"] = _joined(params["embedding"], adapter["item_embedding"], 0)
    if "item_head" in adapter:
        merged["head"] = {"kernel": _joined(params["head"]["kernel"], adapter["item_head"], 1)}
    return merged


def merged_model(model: LlamaConfig, adapter: Mapping) -> LlamaConfig:
    """The sizes of `merge`."""
    items = len(adapter.get("item_embedding", ()))
    return dataclasses.replace(model, vocab_size=model.vocab_size + items)


def _each(layers: Mapping, change: Callable[[dict], dict]) -> dict[str, Any]:
    """The layers of an adapter with every {"a", "b"} changed."""
    return {group: {name: change(pair) for name, pair in own.items()} for group, own in layers.items()}


def _joined(known, rows, axis: int):
    return jnp.concatenate([known, rows.astype(known.dtype)], axis)


def _names(lora: LoraConfig, layers: int):
    """(group, ours, layer, their name without .lora_A or .lora_B) of every adapted matrix."""
    for name in lora.targets:
        group, ours, module = TARGETS[name]
        for layer in range(layers):
            yield group, ours, layer, f"{_PREFIX}model.layers.{layer}.{module}.{name}"


def save_adapter(directory: Path, model: LlamaConfig, lora: LoraConfig, params: Mapping, adapter: Mapping, base: str):
    """Writes the adapter as PEFT does; base: name or directory of the pretrained model.

    With item rows the whole embedding (and head) of the larger vocabulary is stored, as PEFT wants it: resize the base
    with resize_token_embeddings first. Raises LoraError if an adapter is already there.
    """
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if (directory / file).exists():
            raise LoraError(f"{directory} already has {file}; give a new directory, or delete it")
    tensors = {}
    for group, ours, layer, theirs in _names(lora, model.layers):
        for name, part in (("a", "A"), ("b", "B")):
            value = np.asarray(adapter["layers"][group][ours][name][layer], np.float32)
            tensors[f"{theirs}.lora_{part}.weight"] = np.ascontiguousarray(value.T)
    merged = merge(params, {"layers": {}} | {k: v for k, v in adapter.items() if k != "layers"}, None)
    if "item_embedding" in adapter:
        tensors[_EMBEDDING] = np.asarray(merged["embedding"], np.float32)
    if "item_head" in adapter:
        tensors[_HEAD] = np.ascontiguousarray(np.asarray(merged["head"]["kernel"], np.float32).T)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / WEIGHTS_FILE, {"format": "pt"})
    fields = {"base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True, **FIXED}
    fields |= {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    write_json(directory / CONFIG_FILE, fields | {"target_modules": list(lora.targets)})


def load_adapter(directory: Path, model: LlamaConfig, params: Mapping) -> tuple[LoraConfig, dict[str, Any]]:
    """(config, adapter) of PEFT's files, for the base `params`.

    Raises LoraError if files are missing or damaged, use what this adapter does not have, or fit another base: all
    problems in one error.
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
        _, reads, writes = params["layers"][group][ours]["kernel"].shape
        pair = layers.setdefault(group, {}).setdefault(ours, {"a": [], "b": []})
        pair["a"].append(take(f"{theirs}.lora_A.weight", (lora.rank, reads)).T)
        pair["b"].append(take(f"{theirs}.lora_B.weight", (writes, lora.rank)).T)
    stacked = _each(layers, lambda pair: {name: jnp.asarray(np.stack(parts)) for name, parts in pair.items()})
    adapter = {"layers": stacked} | _item_rows(tensors, params, problems)
    problems += [f"{name} is no tensor of this adapter" for name in tensors]
    if problems:
        raise LoraError(f"{directory / WEIGHTS_FILE} does not fit this model: " + "; ".join(problems[:20]))
    return lora, adapter


def _item_rows(tensors: dict[str, np.ndarray], params: Mapping, problems: list[str]) -> dict[str, Any]:
    """The rows behind the base's vocabulary, taken out of `tensors`; the base's own must be the base's."""
    rows = {}
    if "head" not in params and _HEAD in tensors:
        head, table = tensors.pop(_HEAD), tensors.get(_EMBEDDING)
        if table is None or not np.array_equal(head, table):  # PEFT writes such a head twice
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
        raise LoraError(f"there is no {path}; give a directory that PEFT or launch.export wrote")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{path} is damaged or cut off ({error})") from error
