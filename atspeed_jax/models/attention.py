"""Attention over the slots of the prompt and the slots of a token's path."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from atspeed_jax.shapes import SlotMask

MASKED = -1e30  # finite: a query that sees nothing must not become NaN


def attend(query: Array, keys: Array, values: Array, mask: SlotMask, precision: jax.lax.Precision | None) -> Array:
    """Computes masked grouped-query attention (Ainslie et al. 2023).

    Args:
      query: [B, T, H, d].
      keys: [B, S, kv, d]; H is a multiple of kv, and each key head serves H / kv
        queries.
      values: [B, S, kv, d].
      mask: the slots that each token attends to.
      precision: of all matrix products (`LlamaConfig.products`).

    Returns:
      [B, T, H * d] in the dtype of values.
    """
    batch, length, heads, dim = query.shape
    kv, width = keys.shape[2], mask.prompt.shape[-1]
    grouped = query.reshape(batch, length, kv, heads // kv, dim)
    # Logits leave their product wide: bfloat16 would round them before the softmax.
    wide = jnp.promote_types(query.dtype, jnp.float32)
    product = functools.partial(jnp.einsum, precision=precision)
    # The prompt's slots are one matrix product for all tokens.
    logits = product("btkgd,bskd->bkgts", grouped, keys[:, :width], preferred_element_type=wide)
    seen = jnp.broadcast_to(mask.prompt[:, None, None], logits.shape)
    if mask.path.shape[-1]:
        # Gathered, so that a node costs the same in a wide tree as in a narrow one.
        path_keys, path_values = (_on_path(store, mask.path) for store in (keys, values))
        path_logits = product("btkgd,btakd->bkgta", grouped, path_keys, preferred_element_type=wide)
        logits = jnp.concatenate([logits, path_logits], -1)
        seen = jnp.concatenate([seen, jnp.broadcast_to((mask.path >= 0)[:, None, None], path_logits.shape)], -1)
    # One softmax over both parts, since their weights sum to 1 together.
    weights = jax.nn.softmax(jnp.where(seen, logits * dim**-0.5, MASKED), -1).astype(values.dtype)
    attended = product("bkgts,bskd->btkgd", weights[..., :width], values[:, :width])
    if mask.path.shape[-1]:
        attended += product("bkgta,btakd->btkgd", weights[..., width:], path_values)
    return attended.reshape(batch, length, heads * dim)


def _on_path(store: Array, path: Array) -> Array:
    """Gathers the keys or values in the slots of each token's path.

    Args:
      store: [B, S, kv, d].
      path: [B, T, A]; a negative entry gets slot 0, which the caller masks.

    Returns:
      [B, T, A, kv, d].
    """
    batch, slots, *rest = store.shape
    # Copying whole rows is several times faster than one index per number.
    flat = jnp.maximum(path, 0).reshape(batch, -1, 1)
    return jnp.take_along_axis(store.reshape(batch, slots, -1), flat, 1).reshape(*path.shape, *rest)
