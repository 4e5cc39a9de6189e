"""A draft that begins as some layers of its target.

The draft has the target's embedding, its last norm and its head, and of the layers in
between a few. Such a draft agrees with its target before it is trained, needs no smaller
model of the same tokenizer, and takes a part of the target's time: layers / layers of
the target, and the head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.utils.ranges import PartialShare, Range, check_ranges


@dataclasses.dataclass(frozen=True)
class TargetLayersConfig:
    """Which layers of the trained target a draft begins with.

    Attributes:
      target_layers: their numbers in order, from 0, or from -1, the last one, backwards.
        The first and the last layer stand next to the embedding and to the head.
      dropout: see `LlamaConfig`. All other settings are those of the target.

    Raises:
      RangeError: a number is outside its range.
      ValueError: there are no layers.
    """

    target_layers: tuple[Annotated[int, Range(-1000, 999)], ...]
    dropout: PartialShare = 0.0

    def __post_init__(self):
        check_ranges(self)
        if not self.target_layers:
            raise ValueError("target_layers=(): expected numbers of layers of the target, such as (0, -1)")

    def numbers(self, target: LlamaConfig) -> tuple[int, ...]:
        """The numbers of the layers, counted from 0.

        Raises:
          ValueError: the target has no such layer, or one stands in another order.
        """
        layers = target.layers
        numbers = tuple(number % layers if -layers <= number < layers else layers for number in self.target_layers)
        if max(numbers) == layers or any(np.diff(numbers) <= 0):
            raise ValueError(
                f"draft.target_layers={self.target_layers}: expected different layers of the target in their order; it "
                f"has {layers}, numbered from 0 to {layers - 1} or from {-layers} to -1"
            )
        return numbers

    def of(self, target: LlamaConfig) -> LlamaConfig:
        """The sizes of the draft.

        Raises:
          ValueError: see `numbers`.
        """
        chosen = {"layers": len(self.numbers(target)), "dropout": self.dropout, "adapter_dropout": 0.0}
        return dataclasses.replace(target, **chosen)


def take_layers(params: Mapping, layers: tuple[int, ...]) -> dict[str, Any]:
    """The parameters of a draft that begins as layers of its target.

    Args:
      params: of the target, its layers stacked.
      layers: their numbers, counted from 0 (`TargetLayersConfig.numbers`).

    Returns:
      New parameters, float32 as training wants them.
    """
    chosen = jax.tree.map(lambda leaf: jnp.take(leaf, jnp.array(layers), axis=0), params["layers"])
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), {**params, "layers": chosen})
