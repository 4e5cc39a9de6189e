"""Unrolled layers: the same Llama with separate arrays for every layer, to decode with.

Training scans a stack of layers, so the size of its program does not grow with depth. A
scan copies each layer's weights and cache out of the stack before it uses them. That
cost counts where a call reads few tokens.

The matrices of an unrolled layer that read the same input are joined into one, and so
are their biases: a call that reads few tokens takes as long as the launches of its
products. Stored parameters are always stacked and apart.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

PREFIX = "layers_"  # of the name of an unrolled layer; its number follows
QUERY_KEY_VALUE, KEY_VALUE, GATE_UP = ("query", "key", "value"), ("key", "value"), ("gate", "up")


def joined_name(parts: tuple[str, ...]) -> str:
    """Names the joined matrix of `parts`: ("gate", "up") -> "gate_up"."""
    return "_".join(parts)


def unroll(params, *, join: bool = True) -> dict[str, Any]:
    """Replaces the stack "layers" by "layers_0", "layers_1", ...

    The layers are copied: while the caller keeps params, they lie in memory twice.

    Args:
      params: parameters of a Llama with stacked layers.
      join: whether query, key and value become one matrix, and gate and up another. The
        last layer keeps its query apart, since it computes the query of fewer tokens
        than key and value. False where a matrix is split over devices: a part of a
        joined matrix would not be the joined parts.

    Returns:
      Parameters for `LlamaStep(config, unrolled=True)`.

    Raises:
      ValueError: the layers are unrolled already, or a matrix to be joined has arrays
        beside kernel and bias, such as an adapter that is not merged.
    """
    if "layers" not in params:
        raise ValueError(f"parameters {', '.join(sorted(params))} have no stack 'layers': they are unrolled already")
    stack = params["layers"]
    depth = len(jax.tree.leaves(stack)[0])
    if join:
        _check_kernels(stack)
    unrolled = {
        f"{PREFIX}{number}": _layer(stack, number, join=join, last=number + 1 == depth) for number in range(depth)
    }
    return {name: value for name, value in params.items() if name != "layers"} | unrolled


# One program for all layers but the last; a layer that is not joined is split over a
# mesh as its stack is.
@functools.partial(jax.jit, static_argnames=("join", "last"))
def _layer(stack, number: ArrayLike, *, join: bool, last: bool):
    layer = jax.tree.map(lambda leaf: leaf[number], stack)
    return join_layer(layer, last=last) if join else layer


def join_layer(layer: Mapping[str, Any], *, last: bool) -> dict[str, Any]:
    """Joins the matrices of one layer as `unroll` does.

    Args:
      layer: parameters of one layer, apart.
      last: whether the layer is the last one, whose query stays apart.
    """
    attention = _joined(layer["attention"], KEY_VALUE if last else QUERY_KEY_VALUE)
    return dict(layer) | {"attention": attention, "mlp": _joined(layer["mlp"], GATE_UP)}


def restack(params: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `unroll`: the layers are stacked again, their matrices apart."""
    names = [f"{PREFIX}{number}" for number in range(sum(name.startswith(PREFIX) for name in params))]
    layers = [_apart(params[name]) for name in names]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return {name: value for name, value in params.items() if name not in names} | {"layers": stack}


def _joined(matrices: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    joined = {leaf: jnp.concatenate([matrices[name][leaf] for name in parts], -1) for leaf in matrices[parts[0]]}
    return {name: value for name, value in matrices.items() if name not in parts} | {joined_name(parts): joined}


def _apart(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Splits the joined matrices of a layer, if it has any."""
    queries = layer["attention"]["output"]["kernel"].shape[0]  # columns of the query
    split = dict(layer)
    for group, parts, first in (
        ("attention", QUERY_KEY_VALUE, queries),
        ("attention", KEY_VALUE, 0),
        ("mlp", GATE_UP, 0),
    ):
        matrices = dict(split[group])
        if (found := matrices.pop(joined_name(parts), None)) is not None:
            # The other two parts are equally wide.
            half = first + (found["kernel"].shape[-1] - first) // 2
            pieces = {leaf: jnp.split(value, [first, half] if first else [half], -1) for leaf, value in found.items()}
            split[group] = matrices | {
                name: {leaf: each[number] for leaf, each in pieces.items()} for number, name in enumerate(parts)
            }
    return split


def _check_kernels(stack: Mapping[str, Any]) -> None:
    for group, parts in (("attention", QUERY_KEY_VALUE), ("mlp", GATE_UP)):
        for name in parts:
            if stray := sorted(set(stack[group][name]) - {"kernel", "bias"}):
                raise ValueError(
                    f"layers/{group}/{name} has {', '.join(stray)} beside its kernel, which joining would lose: merge "
                    "adapters first (models.lora.merge_adapter), or unroll with join=False"
                )
