"""Attention over the prompt's slots and a token's own path."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from atspeed_jax.shapes import SlotMask

MASKED = -1e30  # finite: a query that sees nothing must not become NaN


def attend(query: Array, keys: Array, values: Array, mask: SlotMask) -> Array:
    """Masked grouped-query attention: query [B, T, H, d], keys and values [B, S, kv, d] -> [B, T, H * d].

    The prompt's slots are one matrix product for all tokens; those of a token's path are gathered, so that a wide tree
    costs each of its nodes no more than a narrow one.
    """
    batch, length, heads, dim = query.shape
    kv, width = keys.shape[2], mask.prompt.shape[-1]
    grouped = query.reshape(batch, length, kv, heads // kv, dim)
    logits = jnp.einsum("btkgd,bskd->bkgts", grouped, keys[:, :width], preferred_element_type=query.dtype)
    seen = jnp.broadcast_to(mask.prompt[:, None, None], logits.shape)
    if mask.path.shape[-1]:
        own_keys, own_values = (_on_path(store, mask.path) for store in (keys, values))
        own = jnp.einsum("btkgd,btakd->bkgta", grouped, own_keys, preferred_element_type=query.dtype)
        logits = jnp.concatenate([logits, own], -1)
        seen = jnp.concatenate([seen, jnp.broadcast_to((mask.path >= 0)[:, None, None], own.shape)], -1)
    logits = (logits * dim**-0.5).astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = jax.nn.softmax(jnp.where(seen, logits, MASKED), -1).astype(values.dtype)
    attended = jnp.einsum("bkgts,bskd->btkgd", weights[..., :width], values[:, :width])
    if mask.path.shape[-1]:
        attended += jnp.einsum("bkgta,btakd->btkgd", weights[..., width:], own_values)
    return attended.reshape(batch, length, heads * dim)


def _on_path(store: Array, path: Array) -> Array:
    """The keys or values [B, T, A, kv, d] in the slots of each token's path [B, T, A]."""
    batch, slots, *rest = store.shape
    flat = jnp.maximum(path, 0).reshape(batch, -1, 1)  # whole rows are copied, several times faster than by one index
    return jnp.take_along_axis(store.reshape(batch, slots, -1), flat, 1).reshape(*path.shape, *rest)
