"""Attention over the slots of the prompt and the slots of a token's path."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from atspeed_jax.shapes import SlotMask

MASKED = -1e30  # finite: a query that sees nothing must not become NaN
# Up to so many slots of a tree, a token is multiplied with all of them and masked: fewer
# kernels. In a wider tree the slots of each token's path are gathered, so that a node
# costs the same in any tree.
MOST_SLOTS = 256


def attend(
    query: Array,
    keys: Array,
    values: Array,
    mask: SlotMask,
    precision: jax.lax.Precision | None,
    *,
    gather: bool = False,
) -> Array:
    """Computes masked grouped-query attention (Ainslie et al. 2023).

    Args:
      query: [B, T, H, d].
      keys: [B, kv, S, d]; H is a multiple of kv, and each key head serves H / kv
        queries.
      values: [B, kv, S, d].
      mask: the slots that each token attends to.
      precision: of all matrix products (`LlamaConfig.products`).
      gather: gathers the slots of paths in a narrow tree too (MOST_SLOTS).

    Returns:
      [B, T, H * d] in the dtype of values.
    """
    batch, length, heads, dim = query.shape
    (kv, slots), width = keys.shape[1:3], mask.prompt.shape[-1]
    has_path = mask.path.shape[-1] > 0
    attention = _along_paths if has_path and (gather or slots - width > MOST_SLOTS) else _over_all_slots
    attended = attention(query.reshape(batch, length, kv, heads // kv, dim), keys, values, mask, precision)
    return attended.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * dim)


def _over_all_slots(query: Array, keys: Array, values: Array, mask: SlotMask, precision) -> Array:
    """Multiplies each token with every slot; returns [B, kv, H / kv, T, d]."""
    if mask.path.shape[-1]:
        seen = mask.dense(keys.shape[2])
    else:
        width = mask.prompt.shape[-1]
        keys, values, seen = keys[:, :, :width], values[:, :, :width], mask.prompt
    logits = _logits("btkgd,bksd->bkgts", query, keys, precision)
    weights = _weights(logits, seen, query, values)
    return jnp.einsum("bkgts,bksd->bkgtd", weights, values, precision=precision)


def _along_paths(query: Array, keys: Array, values: Array, mask: SlotMask, precision) -> Array:
    """Multiplies each token with the prompt's slots, and with the slots of its path."""
    width = mask.prompt.shape[-1]
    path_keys, path_values = (_on_path(store, mask.path, width) for store in (keys, values))
    # The prompt's slots are one matrix product for all tokens.
    logits = _logits("btkgd,bksd->bkgts", query, keys[:, :, :width], precision)
    path_logits = _logits("btkgd,btakd->bkgta", query, path_keys, precision)
    # One softmax over both parts, since their weights sum to 1 together.
    seen = jnp.concatenate([mask.prompt, mask.path >= 0], -1)
    weights = _weights(jnp.concatenate([logits, path_logits], -1), seen, query, values)
    product = functools.partial(jnp.einsum, precision=precision)
    attended = product("bkgts,bksd->bkgtd", weights[..., :width], values[:, :, :width])
    return attended + product("bkgta,btakd->bkgtd", weights[..., width:], path_values)


def _logits(axes: str, query: Array, keys: Array, precision) -> Array:
    # Logits leave their product wide: bfloat16 would round them before the softmax.
    wide = jnp.promote_types(query.dtype, jnp.float32)
    return jnp.einsum(axes, query, keys, preferred_element_type=wide, precision=precision)


def _weights(logits: Array, seen: Bool[Array, "B T M"], query: Array, values: Array) -> Array:
    """Computes the softmax of logits [B, kv, H / kv, T, M] over the slots seen."""
    scaled = jnp.where(seen[:, None, None], logits * query.shape[-1] ** -0.5, MASKED)
    return jax.nn.softmax(scaled, -1).astype(values.dtype)


def _on_path(store: Array, path: Array, width: int) -> Array:
    """Gathers the keys or values in the slots of each token's path.

    Args:
      store: [B, kv, S, d].
      path: [B, T, A]; a negative entry gets some slot, which the caller masks.
      width: P; a path holds no slot of the prompt.

    Returns:
      [B, T, A, kv, d].
    """
    batch, kv, _, dim = store.shape
    # Copying whole rows is several times faster than one index per number or head.
    rows = store[:, :, width:].swapaxes(1, 2).reshape(batch, -1, kv * dim)
    flat = jnp.maximum(path - width, 0).reshape(batch, -1, 1)
    return jnp.take_along_axis(rows, flat, 1).reshape(*path.shape, kv, dim)
