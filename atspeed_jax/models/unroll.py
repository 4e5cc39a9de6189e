"""Unrolled layers: the same Llama with separate arrays for every layer, to decode with.

Training scans a stack of layers, so the size of its program does not grow with depth. A
scan copies each layer's weights and cache out of the stack before it uses them. That
cost counts where a call reads few tokens.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.typing import ArrayLike

PREFIX = "layers_"  # of the name of an unrolled layer; its number follows


def unroll(params) -> dict[str, Any]:
    """Replaces the stack "layers" by "layers_0", "layers_1", ...

    The layers are copied: while the caller keeps params, they lie in memory twice.

    Args:
      params: parameters of a Llama with stacked layers.

    Returns:
      Parameters for `LlamaStep(config, unrolled=True)`.

    Raises:
      ValueError: the layers are unrolled already.
    """
    if "layers" not in params:
        raise ValueError(f"parameters {', '.join(sorted(params))} have no stack 'layers': they are unrolled already")
    depth = len(jax.tree.leaves(params["layers"])[0])
    unrolled = {f"{PREFIX}{number}": _layer(params["layers"], number) for number in range(depth)}
    return {name: value for name, value in params.items() if name != "layers"} | unrolled


@jax.jit  # one program for all layers; a layer is split over a mesh as its stack is
def _layer(stack, number: ArrayLike):
    return jax.tree.map(lambda leaf: leaf[number], stack)
