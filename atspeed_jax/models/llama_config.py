"""The sizes and the arithmetic of a Llama."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from atspeed_jax.models.blocks import PRECISIONS
from atspeed_jax.models.sizes import LlamaSizes, VocabularySize
from atspeed_jax.utils import ranges as R

# remat_policy -> what a layer keeps for its backward pass.
REMAT_POLICIES = {"nothing": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


@dataclasses.dataclass(frozen=True)
class LlamaConfig(LlamaSizes, VocabularySize):
    """Sizes and arithmetic of one model.

    Attributes:
      adapter_dropout: dropout of the input of an adapter's low-rank branches. The other
        fields are those of `LlamaSizes` and `VocabularySize`.

    Raises:
      RangeError: a number is outside its range.
      ValueError: heads is not a multiple of kv_heads, or head_dim is odd.
    """

    adapter_dropout: R.PartialShare = 0.0

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
