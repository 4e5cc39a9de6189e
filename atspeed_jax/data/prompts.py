"""What a model reads of a user, and what it predicts in training.

A model reads the codes of the user's newest items, behind BOS or within an instruction.
Only this file turns items into tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from atspeed_jax.items.catalog import PAD, Catalog, Instruction


def prompt_tokens(catalog: Catalog, items, history: int) -> np.ndarray:
    """The prompt of one user.

    Args:
      catalog: of the items; its instruction, if it has one, stands around them.
      items: in time order.
      history: newest items that the prompt holds.

    Returns:
      [<= prompt_width(catalog, history)] int32: BOS and the items' codes, or the
      instruction with the items in it. Without items: BOS alone, or the instruction of
      no items.

    Raises:
      CatalogError: an unknown item.
      ValueError: a negative `history`.
    """
    if history < 0:
        raise ValueError(f"history is {history}; it is a number of items, 0 or more.")
    items = np.asarray(items, np.int32)
    newest, text = items[max(0, len(items) - history) :], _around(catalog)
    if not len(newest):
        return np.array(text.empty, np.int32)
    separators = np.broadcast_to(np.array(text.separator, np.int32), (len(newest), len(text.separator)))
    body = np.concatenate((separators, catalog.tokens(newest)), 1).reshape(-1)[len(text.separator) :]
    return np.concatenate((np.array(text.head, np.int32), body, np.array(text.tail, np.int32)))


def prompt_width(catalog: Catalog, history: int) -> int:
    """Number of tokens of the longest prompt of at most `history` items."""
    text = _around(catalog)
    if history == 0:
        return len(text.empty)
    between = (history - 1) * len(text.separator)
    return max(len(text.empty), len(text.head) + history * catalog.length + between + len(text.tail))


def shared_head(catalog: Catalog) -> tuple[int, ...]:
    """The tokens that the prompts of all users begin with.

    They are those before the first item that a prompt of no items has too. BOS alone
    does not count: reading BOS once per user costs nothing.

    Returns:
      [H] tokens; none without an instruction. Every prompt goes on behind them.
    """
    text = _around(catalog)
    pairs = zip(text.head, text.empty[:-1], strict=False)
    shared = tuple(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared if len(shared) > 1 else ()


def prompt_rows(catalog: Catalog, histories: Sequence, history: int) -> np.ndarray:
    """Left-padded prompts [N, prompt_width(catalog, history)] int32 of N item
    sequences.
    """
    return _left_padded([prompt_tokens(catalog, items, history) for items in histories], prompt_width(catalog, history))


def training_rows(catalog: Catalog, sequences: Sequence, most: int) -> np.ndarray:
    """Left-padded training rows: the prompt of all items but the last, then the codes
    of the last.

    Args:
      catalog: of the items.
      sequences: N sequences of 1 to `most` items.
      most: items of the longest sequence.

    Returns:
      [N, prompt_width(catalog, most - 1) + L] int32.
    """
    rows = [np.concatenate((prompt_tokens(catalog, s[:-1], most - 1), catalog.tokens(s[-1]))) for s in sequences]
    return _left_padded(rows, prompt_width(catalog, most - 1) + catalog.length)


def next_codes(batch) -> tuple[Array, Array]:
    """The token after each token of a training row, and whether it is to be predicted.

    Padding never counts: it is never marked. Targets are shifted, not the logits:
    slicing logits [B, T, V] costs a padded copy of them in the gradient.

    Args:
      batch: "tokens" and "predict" [B, T] (`batches.train_batches`).

    Returns:
      (tokens, marks), both [B, T].
    """
    return jnp.roll(batch["tokens"], -1, 1), jnp.roll(batch["predict"], -1, 1).at[:, -1].set(False)


def _around(catalog: Catalog) -> Instruction:
    """The catalog's instruction; without one, BOS before the items, if prompts begin
    with it, and nothing else.
    """
    bos = (catalog.bos,)
    return catalog.instruction or Instruction(bos if catalog.begins else (), (), (), bos)


def _left_padded(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Pads rows with PAD on the left, to [N, width] int32."""
    padded = np.full((len(rows), width), PAD, np.int32)
    for line, row in zip(padded, rows, strict=True):
        line[width - len(row) :] = row
    return padded
