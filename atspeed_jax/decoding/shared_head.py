"""The head that all prompts share, read once and not once per user.

With an instruction around the items, all prompts begin with the same tokens. Their keys
and values are the same for every user, so a search may be given them (`Prompt.head`).
The head has slots 0..H-1, padding follows, then the user's part of the prompt.
Positions are those of the prompt without padding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Int

from atspeed_jax.decoding.base import DecodeError, Prompt, StepModel
from atspeed_jax.shapes import StepInput


@functools.partial(jax.jit, static_argnames="model")
def read_head(model: StepModel, params, tokens: Int[Array | np.ndarray, " H"]):
    """Has a model read a head.

    Args:
      model: target or draft.
      params: of the model.
      tokens: [H] that every prompt begins with.

    Returns:
      The cache of one user with H slots, for `SharedHead`.
    """
    row = jnp.asarray(tokens, jnp.int32)[None]
    inputs = StepInput.causal(row, jnp.ones(row.shape, bool))
    return model(params, inputs, model.init_cache(1, row.shape[1]), n_out=1)[1]


def begin_cache(init_cache: Callable[[int, int], Any], batch: int, slots: int, read: Any) -> Any:
    """Makes the cache that a search begins with.

    Args:
      init_cache: of the model or the drafter.
      batch: B users.
      slots: S.
      read: `SharedHead.target` or `SharedHead.draft`; None without a shared head.

    Returns:
      A cache with the head in the first slots of every user, or an empty one.
    """
    cache = init_cache(batch, slots)
    if read is None:
        return cache
    # By shape: the axis of slots is the one that grows with their number.
    one, two = (jax.eval_shape(lambda slots=slots: init_cache(1, slots)) for slots in (1, 2))

    def write(store: Array, head: Array, a, b) -> Array:
        if a.shape == b.shape:  # nothing of this array belongs to a slot
            return store
        axis = [m != n for m, n in zip(a.shape, b.shape, strict=True)].index(True)
        return store.at[(slice(None),) * axis + (slice(head.shape[axis]),)].set(head)

    return jax.tree.map(write, cache, read, one, two)


def shares_head(tokens: Any, valid: Any, head: np.ndarray, xp: Any = np) -> Any:
    """Marks the prompts [B] that begin with a head and go on behind it.

    Args:
      tokens: [B, P], left-padded.
      valid: [B, P], False for padding.
      head: [H] tokens.
      xp: numpy or jax.numpy, whichever the arrays are of.
    """
    lengths, (rows, width), read = valid.sum(1), tokens.shape, len(head)
    columns = xp.minimum((width - lengths)[:, None] + xp.arange(read), width - 1)
    return (lengths > read) & (tokens[xp.arange(rows)[:, None], columns] == head).all(1)


def check_head(prompt: Prompt, head: np.ndarray) -> None:
    """Checks that a head is shared by all prompts of a batch.

    Args:
      prompt: B users. While shapes alone are known, as in tracing, nothing is checked.
      head: [H] tokens.

    Raises:
      DecodeError: a prompt begins with other tokens, or ends with the head.
    """
    if isinstance(prompt.tokens, Tracer):
        return
    tokens, valid = np.asarray(prompt.tokens), np.asarray(prompt.valid)
    shares = shares_head(tokens, valid, head)
    if not shares.all():
        row = int(shares.argmin())
        raise DecodeError(
            f"prompt {row} of the batch is {tokens[row][valid[row]].tolist()}, expected the {len(head)} tokens of the "
            f"shared head, {np.asarray(head).tolist()}, and at least one token behind them: decode such a prompt "
            "without a shared head (`Decoders.with_head(())`)"
        )
