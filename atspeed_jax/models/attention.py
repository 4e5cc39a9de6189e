"""Attention over the prompt's slots and a token's own path."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from atspeed_jax.shapes import SlotMask

MASKED = -1e30  # finite: a query that sees nothing must not become NaN


def attend(query: Array, keys: Array, values: Array, mask: SlotMask, precision: jax.lax.Precision | None) -> Array:
    """Masked grouped-query attention: query [B, T, H, d], keys and values [B, S, kv, d] -> [B, T, H * d].

    The prompt's slots are one matrix product for all tokens; those of a token's path are gathered, so that a wide tree
    costs each of its nodes no more than a narrow one. Logits leave their product in float32 or wider: bfloat16 would
    round them before the softmax. precision: of all products (`LlamaConfig.products`).
    """
    batch, length, heads, dim = query.shape
    kv, width = keys.shape[2], mask.prompt.shape[-1]
    grouped = query.reshape(batch, length, kv, heads // kv, dim)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    product = functools.partial(jnp.einsum, precision=precision)
    logits = product("btkgd,bskd->bkgts", grouped, keys[:, :width], preferred_element_type=wide)
    seen = jnp.broadcast_to(mask.prompt[:, None, None], logits.shape)
    if mask.path.shape[-1]:
        own_keys, own_values = (_on_path(store, mask.path) for store in (keys, values))
        own = product("btkgd,btakd->bkgta", grouped, own_keys, preferred_element_type=wide)
        logits = jnp.concatenate([logits, own], -1)
        seen = jnp.concatenate([seen, jnp.broadcast_to((mask.path >= 0)[:, None, None], own.shape)], -1)
    weights = jax.nn.softmax(jnp.where(seen, logits * dim**-0.5, MASKED), -1).astype(values.dtype)
    attended = product("bkgts,bskd->btkgd", weights[..., :width], values[:, :width])
    if mask.path.shape[-1]:
        attended += product("bkgta,btakd->btkgd", weights[..., width:], own_values)
    return attended.reshape(batch, length, heads * dim)


def _on_path(store: Array, path: Array) -> Array:
    """The keys or values [B, T, A, kv, d] in the slots of each token's path [B, T, A]."""
    batch, slots, *rest = store.shape
    flat = jnp.maximum(path, 0).reshape(batch, -1, 1)  # whole rows are copied, several times faster than by one index
    return jnp.take_along_axis(store.reshape(batch, slots, -1), flat, 1).reshape(*path.shape, *rest)
