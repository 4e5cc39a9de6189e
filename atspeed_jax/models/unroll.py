"""Layers side by side: the same Llama with arrays of its own for every layer, to decode with.

Training scans a stack of layers, so that its program does not grow with depth. A scan copies each layer's weights and
cache out of the stack before it uses them, though, which counts where a call reads few tokens.
"""

from __future__ import annotations

from typing import Any

import jax

PREFIX = "layers_"  # and the layer's number: the name of a layer of its own


def unroll(params) -> dict[str, Any]:
    """The parameters of a Llama with "layers_0", "layers_1", ... in the place of the stack "layers", for
    `LlamaStep(config, unrolled=True)`.

    Copies the layers: while params are kept, they lie in memory twice. Raises ValueError if they are unrolled already.
    """
    if "layers" not in params:
        raise ValueError(f"parameters {', '.join(sorted(params))} have no stack 'layers': they are unrolled already")
    depth = len(jax.tree.leaves(params["layers"])[0])
    apart = {f"{PREFIX}{number}": _layer(params["layers"], number) for number in range(depth)}
    return {name: own for name, own in params.items() if name != "layers"} | apart


@jax.jit  # one program for all layers; a layer is split over a mesh as its stack is
def _layer(stack, number: int):
    return jax.tree.map(lambda leaf: leaf[number], stack)
