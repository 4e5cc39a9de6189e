"""The sizes and the arithmetic of a Llama."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from atspeed_jax.models.blocks import PRECISIONS
from atspeed_jax.models.sizes import LlamaSizes, VocabularySize
from atspeed_jax.utils import ranges as R

# The kinds of models, as config.json names them in model_type. "mistral" computes what
# "llama" computes and differs in its name alone.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
WITH_ATTENTION_BIAS = ("llama", "qwen3")  # those that may have attention_bias
# remat_policy -> what a layer keeps for its backward pass.
REMAT_POLICIES = {"nothing": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


@dataclasses.dataclass(frozen=True)
class LlamaConfig(LlamaSizes, VocabularySize):
    """Sizes and arithmetic of one model.

    Attributes:
      adapter_dropout: dropout of the input of an adapter's low-rank branches.
      model_type: kind of the model (MODEL_TYPES). It decides `qkv_bias` and `qk_norm`,
        and what an export is called.
      attention_bias: whether query, key, value and output of attention have a bias.
        The other fields are those of `LlamaSizes` and `VocabularySize`.

    Raises:
      RangeError: a number is outside its range.
      ValueError: heads is not a multiple of kv_heads, head_dim is odd, or a word is not
        one of those expected.
    """

    adapter_dropout: R.PartialShare = 0.0
    model_type: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    attention_bias: bool = False

    def __post_init__(self):
        R.check_ranges(self)
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions rotate pairs, use an even head_dim")
        if self.remat_policy not in REMAT_POLICIES:
            raise ValueError(f"remat_policy={self.remat_policy!r}: expected one of {', '.join(REMAT_POLICIES)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if self.model_type not in MODEL_TYPES:
            raise ValueError(f"model_type={self.model_type!r}: expected one of {', '.join(MODEL_TYPES)}")
        if self.attention_bias and self.model_type not in WITH_ATTENTION_BIAS:
            raise ValueError(
                f"attention_bias={self.attention_bias} with model_type={self.model_type!r}: expected False; only "
                f"{' and '.join(WITH_ATTENTION_BIAS)} have this switch"
            )

    @property
    def qkv_bias(self) -> bool:
        """Whether query, key and value have a bias."""
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def output_bias(self) -> bool:
        """Whether the output matrix of attention has a bias."""
        return self.attention_bias

    @property
    def qk_norm(self) -> bool:
        """Whether each head's query and key are normed before they are rotated."""
        return self.model_type == "qwen3"

    @property
    def products(self) -> jax.lax.Precision | None:
        """Precision of every matrix product; None in a bfloat16 model."""
        return PRECISIONS[self.precision] if self.wide == self.dtype else None

    @property
    def wide(self) -> jnp.dtype:
        """Dtype of logits and rotary angles: that of the model, at least float32."""
        return jnp.promote_types(self.dtype, jnp.float32)

    @property
    def arithmetic(self) -> str:
        """The dtype and the precision of the products, in words for reports."""
        if self.wide != self.dtype:
            return f"{self.dtype}, logits in {self.wide}"
        return self.dtype + ("" if self.precision == "highest" else f", products in {self.precision} precision")
