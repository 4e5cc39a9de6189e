"""A model whose logits are rows of a table, chosen by a hash of everything it can see.

The cache holds one number per slot, made of the token and the position written there; a call sums the numbers of the
slots its mask shows, and the sum picks a row of the parameter table. So a wrong slot, mask, position, token or an
overwritten ancestor gives another row, and with tables of exact scores (`cases.make_table`) the right row gives exactly
the right ones.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

ROWS = 61  # prime: the rows of a table


@dataclasses.dataclass(frozen=True)
class TableStep:
    """The step contract of the decoders; params is the table [ROWS, V]. Unwritten slots hold numbers of their own."""

    def init_cache(self, batch, slots):
        unwritten = (jnp.arange(slots, dtype=jnp.uint32) + 1) * jnp.uint32(0x51ED270B)
        return jnp.broadcast_to(unwritten, (batch, slots))

    def __call__(self, params, inputs, cache, *, n_out):
        rows = jnp.arange(inputs.tokens.shape[0])[:, None]
        cache = cache.at[rows, inputs.slots].set(_number(inputs.tokens, inputs.positions), mode="drop")
        mask = inputs.mask.dense(cache.shape[1])[:, -n_out:]
        seen = jnp.where(mask, cache[:, None], jnp.uint32(0)).sum(-1, dtype=jnp.uint32)
        return params[_row(seen)], cache


class Calls:
    """Executed calls: for each, which users had one of their tokens written."""

    def __init__(self):
        self.executed: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, rows, wrote):
        self.executed.append((np.asarray(rows), np.asarray(wrote)))  # callbacks may run at once; append is atomic

    def forget(self) -> None:
        """What was executed before, with whatever batches, does not count."""
        jax.effects_barrier()
        self.executed = []

    def take(self) -> tuple[int, list[int]]:
        """Calls, and per user those that wrote one of its tokens, since the last take or forget.

        A call may be of some users only; each batch's first call, which reads the prompts, is of all.
        """
        jax.effects_barrier()
        executed, self.executed = self.executed, []
        written = np.zeros(1 + max((rows.max() for rows, _ in executed), default=-1), int)
        for rows, wrote in executed:
            assert len(set(rows.tolist())) == len(rows), f"one user twice in a call: {rows}"
            written[rows] += wrote
        return len(executed), written.tolist()


@dataclasses.dataclass(frozen=True)
class CountingStep(TableStep):
    """A TableStep that reports each execution to `calls` by a host callback (tests only; a decoder must have none).

    Its cache also says whose it is: rows of a batch, in any order.
    """

    calls: Calls

    def init_cache(self, batch, slots):
        return super().init_cache(batch, slots), jnp.arange(batch)

    def __call__(self, params, inputs, cache, *, n_out):
        cache, rows = cache
        jax.debug.callback(self.calls.add, rows, (inputs.slots < cache.shape[1]).any(1))
        logits, cache = super().__call__(params, inputs, cache, n_out=n_out)
        return logits, (cache, rows)


COUNTED = CountingStep(Calls())  # one object, so that all tests of a shape share its compilation


@dataclasses.dataclass(frozen=True)
class BigramStep:
    """The step contract with logits that hang on the last token alone: params is a table [V, V] (`bigram_logits`)."""

    def init_cache(self, batch, slots):
        return jnp.zeros((batch, slots))

    def __call__(self, params, inputs, cache, *, n_out):
        return params[inputs.tokens[:, -n_out:]], cache


def bigram_logits(table):
    """`BigramStep` for the oracle."""
    table = np.asarray(table, np.float64)
    return lambda sequence: table[sequence[-1]]


def _number(tokens, positions):
    mixed = tokens.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) ^ (positions.astype(jnp.uint32) + 1) * jnp.uint32(
        0x85EBCA77
    )
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    return mixed ^ (mixed >> 13)


def _row(seen):
    mixed = (seen ^ (seen >> 16)) * jnp.uint32(0x7FEB352D)
    return ((mixed ^ (mixed >> 15)) % ROWS).astype(jnp.int32)


def table_logits(table):
    """The same model for the oracle, in Python integers: a function of the whole token sequence, position 0 first."""
    table = np.asarray(table, np.float64)
    word = 0xFFFFFFFF

    def logits_of(sequence):
        total = 0
        for position, token in enumerate(sequence):
            mixed = (token * 0x9E3779B1 & word) ^ ((position + 1) * 0x85EBCA77 & word)
            mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & word
            total += mixed ^ mixed >> 13
        total &= word
        mixed = (total ^ total >> 16) * 0x7FEB352D & word
        return table[(mixed ^ mixed >> 15) % ROWS]

    return logits_of
