"""The key/value cache: one row of slots per user, written by slot number and never gathered or rolled back."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from atspeed_jax.shapes import Tokens


class Cache(struct.PyTreeNode):
    """Keys, values: [layers, B, S, kv_heads, head_dim], or [B, S, kv_heads, head_dim] of one layer.

    Slots 0..P-1 hold the prompt, the rest the tree (DESIGN: level-slotted tree).
    """

    keys: Array
    values: Array


Caches = Cache | tuple[Cache, ...] | None  # of stacked layers, of layers side by side (models/unroll.py), none


def init_cache(layers: int | None, batch: int, slots: int, kv_heads: int, head_dim: int, dtype) -> Cache:
    """An all-zero cache: unwritten slots are finite, so a masked read of them is harmless. layers: None for one."""
    shape = (*(() if layers is None else (layers,)), batch, slots, kv_heads, head_dim)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def write(store: Array, slots: Tokens, new: Array) -> Array:
    """Store [B, S, ...] with new [B, T, ...] written at slots [B, T]; slot S (or more) writes nowhere."""
    rows = jnp.arange(store.shape[0])[:, None]
    return store.at[rows, slots].set(new.astype(store.dtype), mode="drop", unique_indices=False)
