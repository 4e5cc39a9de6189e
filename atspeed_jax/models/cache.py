"""The key/value cache: one row of slots per user.

Tokens are written by slot number. The cache is never reordered and never rolled back.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from atspeed_jax.shapes import Tokens


class Cache(struct.PyTreeNode):
    """Keys and values of all layers, or of one layer.

    Slots 0..P-1 hold the prompt, the other slots the tree (decoding/ALGORITHM.md,
    section 2).

    Attributes:
      keys: [layers, B, S, kv_heads, head_dim]; without the first axis for one layer.
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
    shape = (*(() if layers is None else (layers,)), batch, slots, kv_heads, head_dim)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def write(store: Array, slots: Tokens, new: Array) -> Array:
    """Writes the keys or values of T tokens into their slots.

    Args:
      store: [B, S, ...].
      slots: [B, T]; a token with slot S or larger is not written.
      new: [B, T, ...].

    Returns:
      `store` with `new` at `slots`.
    """
    rows = jnp.arange(store.shape[0])[:, None]
    return store.at[rows, slots].set(new.astype(store.dtype), mode="drop", unique_indices=False)
