"""Low-rank adapters (LoRA, Hu et al. 2021) and rows of item tokens.

An *adapter* is what is trained of a pretrained Llama: a tree like the parameters'.
Beside each adapted matrix W [in, out] it holds a [in, r] and b [r, out], for W + (alpha
/ r) a b. It also holds embedding and head rows of the item tokens, which the pretrained
vocabulary lacks. The adapter is applied beside the base (`scale_adapter`) or merged
into it (`merge_adapter`). models/peft_files.py stores it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.utils.ranges import PartialShare, Range, check_ranges

# Hugging Face's name of a matrix -> our group and name, and its module there.
TARGETS = {
    "q_proj": ("attention", "query", "self_attn"),
    "k_proj": ("attention", "key", "self_attn"),
    "v_proj": ("attention", "value", "self_attn"),
    "o_proj": ("attention", "output", "self_attn"),
    "gate_proj": ("mlp", "gate", "mlp"),
    "up_proj": ("mlp", "up", "mlp"),
    "down_proj": ("mlp", "down", "mlp"),
}


class LoraError(ValueError):
    """An adapter that cannot be made, or files of one that do not fit the model."""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """The shape of an adapter.

    Attributes:
      rank: r.
      alpha: the branch is scaled by alpha / r.
      dropout: dropout of the input of the branches.
      targets: the adapted matrices, by their names in Hugging Face (TARGETS).

    Raises:
      LoraError: a target is unknown, repeated, or none is given.
      RangeError: a number is outside its range.
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
        """The factor alpha / r of a branch."""
        return self.alpha / self.rank


def init_adapter(model: LlamaConfig, lora: LoraConfig, params: Mapping, items: int, key: jax.Array) -> dict[str, Any]:
    """Makes an adapter that does not change the base yet.

    a is uniform in +-1/sqrt(in) and b is zero, as in PEFT.

    Args:
      model: of the base.
      lora: shape of the adapter.
      params: parameters of the base.
      items: number of item tokens behind the vocabulary.
      key: random key.

    Returns:
      {"layers": {group: {name: {"a", "b"}}}} and the rows of `item_rows`.
    """
    layers: dict[str, Any] = {}
    for number, name in enumerate(lora.targets):
        group, ours, _ = TARGETS[name]
        depth, inputs, outputs = params["layers"][group][ours]["kernel"].shape
        bound = inputs**-0.5
        a = jax.random.uniform(jax.random.fold_in(key, number), (depth, inputs, lora.rank), jnp.float32, -bound, bound)
        layers.setdefault(group, {})[ours] = {"a": a, "b": jnp.zeros((depth, lora.rank, outputs))}
    return {"layers": layers} | item_rows(model, params, items, jax.random.fold_in(key, len(TARGETS)))


def item_rows(model: LlamaConfig, params: Mapping, items: int, key: jax.Array) -> dict[str, Any]:
    """Draws embedding and head rows of item tokens.

    A row is the mean of the pretrained rows plus noise of their standard deviation. A
    new token that begins far from all others upsets the model.

    Args:
      model: of the base.
      params: parameters of the base.
      items: number of item tokens.
      key: random key.

    Returns:
      "item_embedding" [items, D] and, with an untied head, "item_head" [D, items], in
      float32; an empty dict for no items.
    """
    if not items:
        return {}

    def rows(known, key):
        known = known.astype(jnp.float32)
        return known.mean(0) + known.std(0) * jax.random.normal(key, (items, known.shape[1]))

    embedding_key, head_key = jax.random.split(key)
    made = {"item_embedding": rows(params["embedding"], embedding_key)}
    if not model.tied_embeddings:
        made["item_head"] = rows(params["head"]["kernel"].T, head_key).T
    return made


def scale_adapter(adapter: Mapping, lora: LoraConfig, tied: bool) -> dict[str, Any]:
    """Prepares an adapter for `llama.forward`, which adds x a b without a factor.

    Args:
      adapter: what is trained.
      lora: its shape.
      tied: the head of the model is its embedding; the item tokens then share their
        rows.

    Returns:
      The adapter with b times alpha / r, and with a head for the item tokens.
    """
    layers = map_pairs(adapter["layers"], lambda pair: pair | {"b": pair["b"] * lora.scale})
    scaled = dict(adapter) | {"layers": layers}
    if tied and "item_embedding" in adapter:
        scaled["item_head"] = adapter["item_embedding"].T
    return scaled


def merge_adapter(params: Mapping, adapter: Mapping, lora: LoraConfig | None) -> dict[str, Any]:
    """Merges an adapter into its base: for decoding and export.

    Args:
      params: parameters of the base.
      adapter: what was trained.
      lora: its shape; may be None if the adapter has item rows only.

    Returns:
      Parameters of a plain Llama (`merged_config`) that computes what base and adapter
      do together. The item tokens follow the base's vocabulary.
    """
    layers = {group: dict(matrices) for group, matrices in params["layers"].items()}
    for group, pairs in adapter["layers"].items():
        for name, pair in pairs.items():
            kernel = layers[group][name]["kernel"]
            assert lora is not None, "layers of an adapter have a LoraConfig"
            branch = jnp.matmul(lora.scale * pair["a"], pair["b"], precision=jax.lax.Precision.HIGHEST)
            layers[group][name] = layers[group][name] | {"kernel": kernel + branch.astype(kernel.dtype)}
    merged = dict(params) | {"layers": layers}
    if "item_embedding" in adapter:
        merged["embedding"] = _appended(params["embedding"], adapter["item_embedding"], 0)
    if "item_head" in adapter:
        merged["head"] = {"kernel": _appended(params["head"]["kernel"], adapter["item_head"], 1)}
    return merged


def merged_config(model: LlamaConfig, adapter: Mapping) -> LlamaConfig:
    """Adds the item tokens to the vocabulary; the config of a merged adapter."""
    items = len(adapter.get("item_embedding", ()))
    return dataclasses.replace(model, vocab_size=model.vocab_size + items)


def map_pairs(layers: Mapping, change: Callable[[dict], dict]) -> dict[str, Any]:
    """Applies `change` to every {"a", "b"} of an adapter's layers."""
    return {group: {name: change(pair) for name, pair in pairs.items()} for group, pairs in layers.items()}


def _appended(known, rows, axis: int):
    return jnp.concatenate([known, rows.astype(known.dtype)], axis)
