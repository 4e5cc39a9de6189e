"""Rows that finish early: a later round reads only those that need it, some at a time.

Most users are done after one round. The first of the unfinished ones are gathered into a smaller batch, which goes
through a round, and put back, until none is left. The size is static, so one later round is compiled whatever the
number of users that need it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import RowBool, RowInt


def rows_at_a_time(batch: int, share: int) -> int:
    """Rows that a later round reads: 1/share of the batch, rounded up."""
    return -(-batch // share)


def most_passes(batch: int, size: int, rounds: int) -> int:
    """Passes over `size` rows after which every row has had so many rounds.

    A row stays among the first unfinished until it is done. When the last row's turn comes, some place has served at
    most ceil(batch / size) - 1 others.
    """
    return -(-batch // size) * rounds


def batch_axes(init_cache: Callable, slots: int):
    """The batch axis of each array of a cache, found by shape: a pytree of ints like the cache."""
    one, two = (jax.eval_shape(lambda batch=batch: init_cache(batch, slots)) for batch in (1, 2))
    return jax.tree.map(lambda a, b: [m != n for m, n in zip(a.shape, b.shape, strict=True)].index(True), one, two)


def run_on_unfinished(one_round: Callable, unfinished: RowBool, state, axes, trie: ItemTrie, prompt: Prompt, size: int):
    """The state after `one_round(state, trie, prompt)` of the first `size` unfinished [B] rows; as it is if there are
    none.

    axes: the batch axis of each array of the state. A round must leave finished rows alone: they fill up the part.
    """

    def with_rows(state):
        if size == unfinished.shape[0]:
            return one_round(state, trie, prompt)
        rows = jnp.argsort(~unfinished, stable=True)[:size]
        own = jax.tree.map(lambda x: x[rows], prompt)
        part = one_round(gather_rows(state, axes, rows), trie.take_rows(rows), own)
        return scatter_rows(state, axes, rows, part)

    return jax.lax.cond(unfinished.any(), with_rows, lambda state: state, state)


def gather_rows(tree, axes, rows: RowInt):
    """The given rows of every array."""
    return jax.tree.map(lambda x, axis: jnp.take(x, rows, axis=axis), tree, axes)


def scatter_rows(tree, axes, rows: RowInt, part):
    """The arrays with `part` in the given (distinct) rows."""
    return jax.tree.map(
        lambda x, axis, new: x.at[(slice(None),) * axis + (rows,)].set(new, unique_indices=True), tree, axes, part
    )
