"""Rows that finish early: a later round reads only those that need it.

Most users are done after one round. Where few are left, they are gathered into a smaller batch, which goes through the
same round, and put back. The sizes are static, so each is compiled once; which one runs is decided on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import Trie
from atspeed_jax.shapes import RowBool, RowInt


def sub_batches(batch: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes that a later round is compiled for, ascending: batch / share for every share, and the whole batch."""
    return (*sorted({batch // share for share in shares} - {0, batch}), batch)


def batch_axes(init_cache: Callable, slots: int):
    """The batch axis of each array of a cache, found by shape: a pytree of ints like the cache."""
    one, two = (jax.eval_shape(lambda batch=batch: init_cache(batch, slots)) for batch in (1, 2))
    return jax.tree.map(lambda a, b: [m != n for m, n in zip(a.shape, b.shape, strict=True)].index(True), one, two)


def on_unfinished(
    one_round: Callable, unfinished: RowBool, state, axes, trie: Trie, prompt: Prompt, shares: tuple[int, ...]
):
    """The state after `one_round(state, trie, prompt)` of at least the unfinished [B] rows; as it is if there are none.

    axes: the batch axis of each array of the state. shares: see `sub_batches`. Finished rows must be left alone by a
    round.
    """
    sizes = sub_batches(unfinished.shape[0], shares)
    order = jnp.argsort(~unfinished, stable=True)

    def with_rows(size: int, state):
        rows = order[:size]
        own = jax.tree.map(lambda x: x[rows], prompt)
        part = one_round(take_rows(state, axes, rows), trie.take_rows(rows), own)
        return put_rows(state, axes, rows, part)

    parts = [functools.partial(with_rows, size) for size in sizes[:-1]]
    choices = [lambda state: state, *parts, lambda state: one_round(state, trie, prompt)]
    smallest = (unfinished.sum() > jnp.array((0, *sizes[:-1]))).sum()
    return jax.lax.switch(smallest, choices, state)


def take_rows(tree, axes, rows: RowInt):
    """The given rows of every array."""
    return jax.tree.map(lambda x, axis: jnp.take(x, rows, axis=axis), tree, axes)


def put_rows(tree, axes, rows: RowInt, part):
    """The arrays with `part` in the given (distinct) rows."""
    return jax.tree.map(
        lambda x, axis, new: x.at[(slice(None),) * axis + (rows,)].set(new, unique_indices=True), tree, axes, part
    )
