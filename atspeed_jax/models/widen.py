"""A larger Llama with the logits of a trained one: the cost of the larger model, the
lists of the trained one.

Speculation saves calls of the target. What a saved call is worth depends on the size of
the target, and a trained target of each size would take weeks. So a trained target is
embedded in a larger one that computes the same function:

* The residual stream gets further entries, which are zero. RMSNorm divides by the mean
  over more entries, so its scale is multiplied by sqrt(d/D) and its eps by d/D.
* Further heads, entries of the MLP and layers have random weights, and output
  projections that are zero.
* A wider head has the trained entries where the rotary frequencies agree. Attention
  divides by the root of the head's width, so the query is multiplied by the root of
  the ratio of the widths.

A table of times measured with such a target says COST_NOTE.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.unroll import PREFIX, join_layer, restack
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.models.wide_shapes import WidenError

COST_NOTE = "cost of N parameters, acceptance of the trained pair"


class _Place(NamedTuple):
    """Where the trained model lies in the larger one.

    Attributes:
      small, big: the two configs.
      query, key: columns of the larger query and key that hold trained ones.
      copied: columns of the trained key that lie in `key`, each once per copy of its
        head.
      query_heads, key_heads: the larger heads that hold a trained one.
    """

    small: LlamaConfig
    big: LlamaConfig
    query: np.ndarray
    key: np.ndarray
    copied: np.ndarray
    query_heads: np.ndarray
    key_heads: np.ndarray


def widen(
    config: LlamaConfig, params: Mapping[str, Any], big: LlamaConfig, *, seed: int = 0, unrolled: bool | None = None
) -> dict[str, Any]:
    """Makes the parameters of the larger model, layer by layer and on the device.

    Beside the result, memory holds one layer at a time. Logits are those of the trained
    model up to rounding.

    Args:
      config: of the trained model.
      params: its parameters, stacked or unrolled (`models.unroll`).
      big: config of the larger model (`widened_config`). Its dtype is that of the
        matrices; scales of norms are float32 at least.
      seed: of the random weights.
      unrolled: layout of the result; None for the layout of `params`.

    Returns:
      A nested dict for `LlamaStep(big, unrolled)`.

    Raises:
      WidenError: `params` hold an array that widening does not know.
    """
    stack = _stacked(params)
    _check_params(config, params, stack)
    place, dtype = _place(config, big), jnp.dtype(big.dtype)
    table = _pad(params["embedding"], (config.vocab_size, big.hidden_size), dtype)
    made: dict[str, Any] = {"embedding": table, "norm": {"scale": _scale(place, params["norm"]["scale"])}}
    if "head" in params:
        made["head"] = {"kernel": _pad(params["head"]["kernel"], (big.hidden_size, config.vocab_size), dtype)}
    key = jax.random.key(seed)
    if unrolled is None:
        unrolled = "layers" not in params
    if unrolled:
        layer = jax.jit(functools.partial(_unrolled_layer, place), static_argnames="last")
        numbers = range(big.layers)
        return made | {f"{PREFIX}{number}": layer(stack, key, number, last=number == numbers[-1]) for number in numbers}

    def all_layers(stack, key):
        return jax.lax.map(lambda number: _layer(place, stack, key, number), jnp.arange(big.layers))

    return made | {"layers": jax.jit(all_layers)(stack, key)}


def _place(small: LlamaConfig, big: LlamaConfig) -> _Place:
    """Finds a place for each trained head, and for its entries within the larger head.

    A head's entry i, and its partner i + head_dim / 2, turn with frequency
    theta^(-2i / head_dim): the frequency of entry i * ratio of a head that is `ratio`
    times as wide.
    """
    ratio, half = big.head_dim // small.head_dim, np.arange(small.head_dim // 2)
    within = np.concatenate([ratio * half, big.head_dim // 2 + ratio * half])
    group, big_group = small.heads // small.kv_heads, big.heads // big.kv_heads
    copies = -(-group // big_group)
    key_heads = np.arange(small.kv_heads * copies)
    number = np.arange(small.heads)
    member = number % group
    query_heads = (number // group * copies + member // big_group) * big_group + member % big_group

    def columns(heads, head_dim, within):
        return (heads[:, None] * head_dim + within).reshape(-1)

    return _Place(
        small,
        big,
        query=columns(query_heads, big.head_dim, within),
        key=columns(key_heads, big.head_dim, within),
        copied=columns(key_heads // copies, small.head_dim, np.arange(small.head_dim)),
        query_heads=query_heads,
        key_heads=key_heads,
    )


def _layer(place: _Place, stack: Mapping[str, Any], key: Array, number: Array) -> dict[str, Any]:
    """Makes layer `number`: random weights with outputs of zero, and the trained ones
    among them if the trained model has that layer.
    """
    big, dtype = place.big, jnp.dtype(place.big.dtype)
    width, wide = big.hidden_size, big.intermediate_size
    queries, keys = big.heads * big.head_dim, big.kv_heads * big.head_dim
    draws = iter(jax.random.split(jax.random.fold_in(key, number), 5))

    def random(*size):
        return {"kernel": 0.02 * jax.random.normal(next(draws), size, dtype)}

    def zeros(*size):
        return {"kernel": jnp.zeros(size, dtype)}

    attention = {"query": random(width, queries), "key": random(width, keys), "value": random(width, keys)}
    new = {
        "attention": attention | {"output": zeros(queries, width)},
        "mlp": {"gate": random(width, wide), "up": random(width, wide), "down": zeros(wide, width)},
        "attention_norm": {"scale": _scale(place, None)},
        "mlp_norm": {"scale": _scale(place, None)},
    }

    def with_trained(layer):
        trained = jax.tree.map(lambda leaf: leaf[jnp.minimum(number, place.small.layers - 1)], stack)
        return _embed(place, layer, trained)

    return jax.lax.cond(number < place.small.layers, with_trained, lambda layer: layer, new)


def _unrolled_layer(place: _Place, stack: Mapping[str, Any], key: Array, number: Array, *, last: bool):
    return join_layer(_layer(place, stack, key, number), last=last)


def _embed(place: _Place, layer: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a trained layer into a larger one."""
    small, big = place.small, place.big
    rows, entries = np.arange(small.hidden_size), np.arange(small.intermediate_size)
    root = (big.head_dim / small.head_dim) ** 0.5
    old = {name: trained["attention"][name]["kernel"] for name in ("query", "key", "value", "output")}
    base = {name: layer["attention"][name]["kernel"] for name in old}

    def put(kernel, at_rows, at_columns, value):
        return {"kernel": kernel.at[at_rows[:, None], at_columns[None]].set(value.astype(kernel.dtype))}

    def silent(kernel, heads):
        """A head that holds a trained one adds nothing else to its logits."""
        return kernel.at[:, (heads[:, None] * big.head_dim + np.arange(big.head_dim)).reshape(-1)].set(0)

    attention = {
        "query": put(silent(base["query"], place.query_heads), rows, place.query, root * old["query"]),
        "key": put(silent(base["key"], place.key_heads), rows, place.key, old["key"][:, place.copied]),
        "value": put(base["value"], rows, place.key, old["value"][:, place.copied]),
        "output": put(base["output"], place.query, rows, old["output"]),
    }
    mlp = {
        name: put(layer["mlp"][name]["kernel"], *at, trained["mlp"][name]["kernel"])
        for name, at in {"gate": (rows, entries), "up": (rows, entries), "down": (entries, rows)}.items()
    }
    norms = {name: {"scale": _scale(place, trained[name]["scale"])} for name in ("attention_norm", "mlp_norm")}
    return {"attention": attention, "mlp": mlp} | norms


def _scale(place: _Place, trained: Array | None) -> Array:
    """Makes the scale of a norm; None for a layer that the trained model lacks."""
    scale = jnp.ones((place.big.hidden_size,), jnp.promote_types(place.big.dtype, jnp.float32))
    if trained is None:
        return scale
    small = place.small.hidden_size
    root = (small / place.big.hidden_size) ** 0.5
    return scale.at[:small].set(root * jnp.asarray(trained, scale.dtype))


def _pad(array: Array, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
    """Fills a matrix up with zeros to a larger shape."""
    rows, columns = array.shape
    return jnp.zeros(shape, dtype).at[:rows, :columns].set(jnp.asarray(array, dtype))


def _stacked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the layers of the trained model as one stack, whatever their layout."""
    return jax.tree.map(jnp.asarray, params if "layers" in params else restack(params))["layers"]


def _check_params(config: LlamaConfig, params: Mapping[str, Any], stack: Mapping[str, Any]) -> None:
    """Raises WidenError unless the parameters are those that a Llama of this config
    has.
    """
    apart = {name: value for name, value in params.items() if name != "layers" and not name.startswith(PREFIX)}
    known, found = (_shapes(tree) for tree in (param_shapes(config), apart | {"layers": stack}))
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) != found.get(name):
            raise WidenError(
                f"parameter {name} of the trained model has shape {found.get(name)}, expected {known.get(name)}: "
                "widening knows the arrays of a plain Llama alone; merge adapters first"
            )


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = dict(flatten_dict(tree, sep="/"))
    return {name: np.shape(leaf) for name, leaf in flat.items()}
