"""Attention over the slots of the prompt and the slots of a token's path."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from atspeed_jax.shapes import SlotMask

MASKED = -1e30  # finite: a query that sees nothing must not become NaN
# Up to so many slots of a tree, a token is multiplied with all of them and masked: fewer
# kernels. In a wider tree the slots of each token's path are gathered, so that a node
# costs the same in any tree. A CPU launches faster and multiplies more slowly.
MOST_SLOTS_CPU, MOST_SLOTS = 64, 256
# Larger logits are computed for a block of tokens at a time, with the mask of the block, so
# that the memory of a long prompt does not grow with the square of its length.
MOST_BYTES = 1 << 30
HEADS = ((0, 1), (0, 1))  # of a product per user and key head


def attend(
    query: Array,
    keys: Array,
    values: Array,
    mask: SlotMask,
    precision: jax.lax.Precision | None,
    *,
    trains: bool = False,
) -> Array:
    """Computes masked grouped-query attention (Ainslie et al. 2023).

    Args:
      query: [B, T, H, d].
      keys: [B, kv, S, d]; H is a multiple of kv, and each key head serves H / kv
        queries.
      values: [B, kv, S, d].
      mask: the slots that each token attends to.
      precision: of all matrix products (`LlamaConfig.products`).
      trains: whether a gradient is taken. Paths are then gathered in narrow trees too,
        no logits are computed in blocks (MOST_SLOTS, MOST_BYTES), and gradients keep the
        order of their sums.

    Returns:
      [B, T, H * d] in the dtype of values.
    """
    batch, length, heads, dim = query.shape
    (kv, slots), width = keys.shape[1:3], mask.width
    read = {"keys": keys, "values": values, "precision": precision}
    dense, paths = functools.partial(_over_all_slots, **read, trains=trains), functools.partial(_along_paths, **read)

    def by_platform(query, mask):
        return jax.lax.platform_dependent(query, mask, cpu=paths, default=dense)

    if not mask.path.shape[-1] or (not trains and slots - width <= MOST_SLOTS_CPU):
        attention = dense
    else:
        attention = paths if trains or slots - width > MOST_SLOTS else by_platform
    size = jnp.promote_types(query.dtype, jnp.float32).itemsize
    blocks = 1 if trains else min(length, -(-size * batch * heads * length * slots // MOST_BYTES))
    attended = _in_blocks(attention, query.reshape(batch, length, kv, heads // kv, dim), mask, blocks)
    return attended.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * dim)


def _in_blocks(attention: Callable, query: Array, mask: SlotMask, blocks: int) -> Array:
    """Computes attention for one block of tokens after the other.

    Args:
      attention: (query, mask) -> [B, kv, H / kv, T, d] of the tokens of a block.
      query: [B, T, kv, H / kv, d] of all tokens.
      mask: of all tokens.
      blocks: their number.

    Returns:
      [B, kv, H / kv, T, d].
    """
    if blocks == 1:
        return attention(query, mask)
    length = query.shape[1]
    size = -(-length // blocks)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, blocks * size - length) if axis == 1 else (0, 0) for axis in range(x.ndim)])
        return padded.reshape(x.shape[0], blocks, size, *x.shape[2:]).swapaxes(0, 1)

    made = jax.lax.map(lambda part: attention(*part), jax.tree.map(split, (query, mask)))
    return jnp.concatenate(list(made), 3)[:, :, :, :length]


def _over_all_slots(
    query: Array, mask: SlotMask, *, keys: Array, values: Array, precision, trains: bool = False
) -> Array:
    """Multiplies each token with every slot; returns [B, kv, H / kv, T, d]."""
    if mask.path.shape[-1]:
        seen = mask.dense(keys.shape[2])
    else:
        width = mask.width
        keys, values, seen = keys[:, :, :width], values[:, :, :width], mask.prompt
    if trains:
        weights = _weights(_logits("btkgd,bksd->bkgts", query, keys, precision), seen, query, values)
        return jnp.einsum("bkgts,bksd->bkgtd", weights, values, precision=precision)
    batch, length, kv, group, dim = query.shape
    # Queries as rows, slots side by side: jnp.einsum lets the slots be rows, and a softmax
    # over rows is three kernels on a GPU where it is one over what lies side by side.
    rows = query.transpose(0, 2, 3, 1, 4).reshape(batch, kv, group * length, dim)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    product = functools.partial(jax.lax.dot_general, precision=precision)
    logits = product(rows, keys, (((3,), (3,)), HEADS), preferred_element_type=wide)
    weights = _weights(logits.reshape(batch, kv, group, length, -1), seen, query, values)
    attended = product(weights.reshape(batch, kv, group * length, -1), values, (((3,), (2,)), HEADS))
    return attended.reshape(batch, kv, group, length, dim)


def _along_paths(query: Array, mask: SlotMask, *, keys: Array, values: Array, precision) -> Array:
    """Multiplies each token with the prompt's slots, and with the slots of its path."""
    width = mask.width
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
