"""How the training of a model starts, and what of the model is trained.

All of a new model, all of a pretrained model, or an adapter of a pretrained model. A
draft may begin as layers of its target.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.models.target_layers import take_layers
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.training import sharding


@dataclasses.dataclass(frozen=True, eq=False)
class Initialization:
    """Where training starts.

    Attributes:
      model: sizes of the model that the training loss runs (`next_item.training_loss`).
      init, frozen: see `TrainingTask.init_params` and `TrainingTask.frozen`.
      lora: the adapter that is trained; None where whole parameters are trained.
      full_params: what is trained -> the parameters of the model that is served.
    """

    model: LlamaConfig
    init: Callable[..., Any]
    frozen: Any
    lora: LoraConfig | None
    full_params: Callable[[Any], Any]

    def abstract(self, mesh: Mesh):
        """A tree of jax.ShapeDtypeStruct of what is trained, sharded over the mesh."""
        frozen = () if self.frozen is None else (self.frozen,)
        return sharding.abstract_on(jax.eval_shape(self.init, jax.random.key(0), *frozen), mesh)


def from_scratch(model: LlamaConfig) -> Initialization:
    """Random parameters, all of which are trained."""
    return Initialization(
        model=model,
        init=functools.partial(init_params, model),
        frozen=None,
        lora=None,
        full_params=lambda params: params,
    )


def from_target(draft: LlamaConfig, target_params, layers: tuple[int, ...]) -> Initialization:
    """A draft that begins as layers of its target, all of which is trained.

    Args:
      draft: its sizes (`TargetLayersConfig.of`).
      target_params: parameters of the target, or their shapes.
      layers: their numbers.
    """

    def init(key, target):
        del key  # nothing is random
        return take_layers(target, layers)

    return dataclasses.replace(from_scratch(draft), init=init, frozen=target_params)


def from_pretrained(pretrained: Pretrained, catalog: Catalog, mesh: Mesh) -> Initialization:
    """A pretrained model, which is loaded: every device holds its part.

    Args:
      catalog: among whose tokens the model's are (`items.placement`). Codes that are
        new to the model get rows in embedding and head.
    """
    pretrained = pretrained.numbered(catalog.vocabulary)
    shardings = sharding.tree_shardings(param_shapes(pretrained.model), mesh)
    return from_base(pretrained, pretrained.load(shardings), catalog.new_codes)


def from_base(pretrained: Pretrained, base, codes: int) -> Initialization:
    """A pretrained model whose parameters are given.

    Args:
      base: the parameters of the pretrained model, or their shapes.
      codes: how many code tokens get rows in embedding and head.
    """

    def init(key, base):
        return pretrained.init_trainable(key, base, codes)

    model = pretrained.model
    if pretrained.lora is None:
        model = dataclasses.replace(model, vocab_size=model.vocab_size + codes)
    return Initialization(
        model=model,
        init=init,
        frozen=base,
        lora=pretrained.lora,
        full_params=functools.partial(pretrained.full_params, base=base),
    )
