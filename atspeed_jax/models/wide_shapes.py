"""The sizes that a trained Llama is widened to (`models.widen`), by name."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from atspeed_jax.models.llama_config import LlamaConfig

# The switches of LlamaConfig that widening keeps or changes exactly. Whoever adds a
# switch says here how it is widened, or leaves it to be refused.
_KNOWN = {
    *("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim"),
    *("rope_theta", "rope_scaling", "norm_eps", "tied_embeddings", "dropout", "dtype", "remat"),
    *("remat_policy", "precision", "adapter_dropout", "model_type", "attention_bias"),
}
_LACKING = ("qkv_bias", "output_bias", "qk_norm")  # parts that a larger model is not given


class WidenError(ValueError):
    """A model that cannot be embedded exactly in a model of the size asked for."""


class Shape(NamedTuple):
    """The size of a larger model, apart from its vocabulary.

    Attributes:
      hidden_size, intermediate_size, layers: as in `LlamaConfig`.
      query_width: all query heads side by side.
      key_width: all key heads side by side; equal to query_width without groups.
      head_dim: width of a head; None for that of the trained model. Then as many whole
        heads are made as fit into query_width and key_width.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    query_width: int
    key_width: int
    head_dim: int | None = None


SHAPES = {
    "3m": Shape(256, 704, 4, 256, 256),
    "10m": Shape(384, 1024, 6, 384, 384),
    "25m": Shape(512, 1408, 8, 512, 512),
    "50m": Shape(768, 2048, 8, 768, 768),
    "110m": Shape(1024, 2816, 10, 1024, 1024),
    "1b": Shape(2048, 5632, 22, 2048, 2048, 128),
    "qwen3-1.7b": Shape(2048, 6144, 28, 2048, 1024, 128),
    "llama-7b": Shape(4096, 11008, 32, 4096, 4096, 128),
}


def shape_named(name: str) -> Shape:
    """Returns the shape with this name.

    Raises:
      WidenError: no shape has the name.
    """
    if name not in SHAPES:
        raise WidenError(f"shape {name!r}: expected one of {', '.join(SHAPES)}")
    return SHAPES[name]


def widened_config(config: LlamaConfig, name: str, shape: Shape | None = None) -> LlamaConfig:
    """Returns the config of the larger model.

    Args:
      config: of the trained model.
      name: of a shape, for messages too.
      shape: the shape; None for the one of SHAPES with this name.

    Raises:
      WidenError: the trained model does not fit into the shape, or has a switch that
        cannot be widened. The message names both models.
    """
    shape = shape or shape_named(name)
    _check_switches(config)
    head_dim = shape.head_dim or config.head_dim
    if head_dim % config.head_dim:
        raise WidenError(
            f"head_dim={config.head_dim} of the trained model does not divide head_dim={head_dim} of shape {name}: "
            f"choose a shape that keeps the head_dim ({', '.join(n for n, s in SHAPES.items() if s.head_dim is None)})"
        )
    kv_heads = shape.key_width // head_dim
    heads = kv_heads * (shape.query_width // shape.key_width)
    if kv_heads == 0:
        raise WidenError(
            f"head_dim={head_dim} of the trained model is larger than the key width {shape.key_width} of shape {name}: "
            "choose a larger shape"
        )
    _check_fits(config, name, shape, heads, kv_heads)
    return dataclasses.replace(
        config,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        layers=shape.layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=config.norm_eps * config.hidden_size / shape.hidden_size,
    )


def _check_switches(config: LlamaConfig) -> None:
    """Raises WidenError for a switch or a part that widening does not know."""
    if parts := [name for name in _LACKING if getattr(config, name)]:
        raise WidenError(
            f"the trained model of type {config.model_type!r} has {', '.join(parts)}: only a model without biases and "
            "without normed heads can be widened exactly, such as a Llama or a Mistral"
        )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in _KNOWN and value != field.default:
            raise WidenError(f"{field.name}={value!r} of the trained model: this switch cannot be widened exactly")


def _check_fits(config: LlamaConfig, name: str, shape: Shape, heads: int, kv_heads: int) -> None:
    """Raises WidenError for a size of the trained model beyond that of the shape."""
    # A trained key head with more queries than a group of the shape holds is copied.
    copies = -(-(config.heads // config.kv_heads) // (heads // kv_heads))
    needed = {
        "hidden_size": (config.hidden_size, shape.hidden_size),
        "intermediate_size": (config.intermediate_size, shape.intermediate_size),
        "layers": (config.layers, shape.layers),
        "key heads": (config.kv_heads * copies, kv_heads),
    }
    for what, (small, large) in needed.items():
        if small > large:
            raise WidenError(f"the trained model needs {what} {small}, shape {name} has {large}: choose a larger shape")
