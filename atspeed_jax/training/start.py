"""How a model begins, and what of it is trained: all of a new one, all of a pretrained one, or an adapter of that."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.training import sharding


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """read: the model that the training loss runs, `next_item.training_loss`. init, frozen: see `fit`. lora: of the
    adapter that is trained, if one is. whole: from what is trained to the parameters of the model that is served."""

    read: LlamaConfig
    init: Callable[..., Any]
    frozen: Any
    lora: LoraConfig | None
    whole: Callable[[Any], Any]

    def abstract(self, mesh: Mesh):
        """Shapes of what is trained, and where it lies on the mesh."""
        frozen = () if self.frozen is None else (self.frozen,)
        return sharding.abstract_on(jax.eval_shape(self.init, jax.random.key(0), *frozen), mesh)


def scratch(model: LlamaConfig) -> Start:
    """Random parameters, all of them trained."""
    return Start(model, functools.partial(init_params, model), None, None, lambda params: params)


def finetuned(pretrained: Pretrained, codes: int, mesh: Mesh) -> Start:
    """A pretrained model with rows for `codes` code tokens; loads it, every device its part."""
    shardings = sharding.tree_shardings(param_shapes(pretrained.model), mesh)
    return begun(pretrained, pretrained.load(shardings), codes)


def begun(pretrained: Pretrained, base, codes: int) -> Start:
    """The same with the base's parameters given, or their shapes."""

    def init(key, base):
        return pretrained.begin(key, base, codes)

    read = pretrained.model
    if pretrained.lora is None:
        read = dataclasses.replace(read, vocab_size=read.vocab_size + codes)
    return Start(read, init, base, pretrained.lora, functools.partial(pretrained.whole, base=base))
