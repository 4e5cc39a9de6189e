"""The key/value cache: one row of slots per user.

Tokens are written by slot number. The cache is never reordered and never rolled back.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from atspeed_jax.shapes import Tokens


class Cache(struct.PyTreeNode):
    """Keys and values of all layers, or of one layer.

    Slots 0..P-1 hold the prompt, the other slots the tree (decoding/ALGORITHM.md,
    section 2).

    Attributes:
      keys: [layers, B, kv_heads, S, head_dim]; without the first axis for one layer. In
        this order attention multiplies by them as they lie.
      values: the same shape as keys.
    """

    keys: Array
    values: Array


# Of stacked layers, of unrolled layers one by one (models/unroll.py), or none.
Caches = Cache | tuple[Cache, ...] | None


def init_cache(layers: int | None, batch: int, slots: int, kv_heads: int, head_dim: int, dtype) -> Cache:
    """Makes an all-zero cache.

    Zeros are finite, so a masked read of a slot that was never written does no harm.

    Args:
      layers: number of stacked layers; None for the cache of one layer.
      batch: users B.
      slots: S.
      kv_heads: key and value heads of a layer.
      head_dim: width of one head.
      dtype: of keys and values.
    """
    shape = (*(() if layers is None else (layers,)), batch, kv_heads, slots, head_dim)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def write(store: Array, slots: Tokens, new: Array, first_slot: int | None) -> Array:
    """Writes the keys or values of T tokens into their slots.

    Args:
      store: [B, kv_heads, S, head_dim].
      slots: [B, T]; a token with slot S or larger is not written.
      new: [B, T, kv_heads, head_dim].
      first_slot: see `StepInput.first_slot`.

    Returns:
      `store` with `new` at `slots`.
    """
    new = new.astype(store.dtype)
    if first_slot is not None:
        # Of a scatter XLA makes a loop over the tokens, or a kernel that nothing joins.
        place = slice(first_slot, first_slot + new.shape[1])
        written = (slots < store.shape[2])[:, None, :, None]
        block = jnp.where(written, new.swapaxes(1, 2), store[:, :, place])
        return jax.lax.dynamic_update_slice_in_dim(store, block, first_slot, 2)
    rows = jnp.arange(store.shape[0])[:, None]
    return store.at[rows, :, slots].set(new, mode="drop", unique_indices=False)
