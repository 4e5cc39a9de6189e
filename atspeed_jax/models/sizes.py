"""The sizes of a Llama, apart from its vocabulary."""

from __future__ import annotations

import dataclasses
from typing import Literal

from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.utils import ranges as R


@dataclasses.dataclass(frozen=True)
class LlamaSizes:
    """What a Llama and a config of one have in common.

    Attributes:
      hidden_size: width D of the residual stream.
      intermediate_size: width of the SwiGLU branch.
      layers, heads, kv_heads, head_dim: of attention; kv_heads divides heads.
      rope_theta, rope_scaling: of the rotary positions.
      norm_eps: of RMSNorm.
      tied_embeddings: whether the head reads the table of embeddings.
      dropout: while training, on the embedding and on both residual branches, in steps
        of 1/256.
      dtype: of activations, cache and matrix products. Parameters are created in
        float32.
      remat: whether a layer's activations are computed again in the backward pass.
      remat_policy: what is kept nevertheless: "nothing", or "dots", the results of the
        layer's matrix products.
      precision: of a float32 model's products. With "highest" every device multiplies
        in float32. With "high" or "default" a GPU multiplies in TF32 and a TPU in
        bfloat16 (`jax.lax.Precision`). A bfloat16 model does not use it; the logits of
        attention and head leave their products in float32.
    """

    hidden_size: R.HiddenSize
    intermediate_size: R.IntermediateSize
    layers: R.Layers
    heads: R.Heads
    kv_heads: R.Heads
    head_dim: R.HeadDim
    rope_theta: R.RopeTheta
    norm_eps: R.NormEps
    tied_embeddings: bool
    dropout: R.PartialShare
    dtype: Literal["float32", "bfloat16", "float64"]
    remat: bool
    rope_scaling: RopeScalingConfig | None = None
    remat_policy: Literal["nothing", "dots"] = "nothing"
    precision: Literal["highest", "high", "default"] = "highest"


@dataclasses.dataclass(frozen=True)
class VocabularySize:
    """The size of the vocabulary: a base class, so that it is the first field."""

    vocab_size: R.VocabSize
