"""Rows that finish early: a later round reads the unfinished rows alone.

Most users are done after one round. A part at a time, the first unfinished rows are
gathered into a smaller batch, which goes through a round and is scattered back, until
none is left. The size of that batch is static, so one later round is compiled for any
number of unfinished rows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from atspeed_jax.decoding.search import Search
from atspeed_jax.shapes import RowBool, RowInt


def rows_at_a_time(batch: int, share: int) -> int:
    """Returns how many rows a later round reads: 1/share of the batch, rounded up."""
    return -(-batch // share)


def most_passes(batch: int, size: int, rounds: int) -> int:
    """Returns the passes over `size` rows after which each row has had `rounds` rounds.

    A row stays among the first unfinished until it is done, so each seat of the smaller
    batch serves at most ceil(batch / size) rows in turn.
    """
    return -(-batch // size) * rounds


def batch_axes(init_cache: Callable, slots: int):
    """Finds the batch axis of each array of a cache: a pytree of ints like the cache."""
    # By shape: it is the axis that grows with the batch.
    one, two = (jax.eval_shape(lambda batch=batch: init_cache(batch, slots)) for batch in (1, 2))
    return jax.tree.map(lambda a, b: [m != n for m, n in zip(a.shape, b.shape, strict=True)].index(True), one, two)


def run_on_unfinished(one_round: Callable, unfinished: RowBool, state, search: Search, *, axes, size: int):
    """Runs a round on the first `size` unfinished rows.

    Args:
      one_round: (state, search) -> state. Finished rows may fill up the smaller batch,
        so it must leave them alone.
      unfinished: [B].
      state: pytree of arrays with a batch axis each.
      search: of all B users.
      axes: the batch axis of each array of the state.
      size: rows of the smaller batch.

    Returns:
      The state afterwards; the same state if no row is unfinished.
    """

    def on_rows(state):
        if size == unfinished.shape[0]:
            return one_round(state, search)
        # Distinct rows even if fewer are unfinished, so that scattering has one writer
        # each.
        rows = jnp.argsort(~unfinished, stable=True)[:size]
        part = one_round(gather_rows(state, axes, rows), search.take_rows(rows))
        return scatter_rows(state, axes, rows, part)

    # `cond`, not a mask: a batch that is finished makes no model call.
    return jax.lax.cond(unfinished.any(), on_rows, lambda state: state, state)


def gather_rows(tree, axes, rows: RowInt):
    """Gathers some rows of every array; axes: the batch axis of each."""
    return jax.tree.map(lambda x, axis: jnp.take(x, rows, axis=axis), tree, axes)


def scatter_rows(tree, axes, rows: RowInt, part):
    """Writes `part` into the given rows, which are distinct, of every array."""
    return jax.tree.map(
        lambda x, axis, new: x.at[(slice(None),) * axis + (rows,)].set(new, unique_indices=True), tree, axes, part
    )
