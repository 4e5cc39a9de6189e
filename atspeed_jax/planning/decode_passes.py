"""The model calls of a decode, as passes whose cost can be counted."""

from __future__ import annotations

from typing import NamedTuple

from atspeed_jax.decoding.budget import level_slots, read_nodes
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.row_compaction import rows_at_a_time
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.planning.estimate import Pass


class Pair(NamedTuple):
    """The configs of the two models; without a draft model, `draft` is None."""

    target: LlamaConfig
    draft: LlamaConfig | None


def plain_search(target: LlamaConfig, beams: int, length: int, prompt: int, rows: int) -> list[Pass]:
    """Lists the calls of plain beam search.

    Args:
      target: config of the model.
      beams: K.
      length: codes of an id.
      prompt: tokens of the prompt.
      rows: users.
    """
    calls = [_call(target, rows, prompt, prompt, 1)]
    return calls + [_call(target, rows, beams, prompt, beams)] * (length - 1)


def first_round(pair: Pair, search: SearchConfig, prompt: int, rows: int) -> list[Pass]:
    """Lists the calls of round 1 of a speculative search.

    Args:
      pair: the models.
      search: resolved settings.
      prompt: tokens of the prompt.
      rows: users.
    """
    sizes, (read, _) = level_slots(search), read_nodes(search)
    calls = [_call(pair.target, rows, prompt + read, prompt, 1 + read)]
    if pair.draft is None:
        return calls
    calls.append(_call(pair.draft, rows, prompt, prompt, 1))
    return calls + [_call(pair.draft, rows, size, prompt, size) for size in sizes[:-1]]


def later_round(pair: Pair, search: SearchConfig, prompt: int, rows: int) -> list[Pass]:
    """Lists the calls of a round after the first, in which a part of the rows is read.

    Args: see `first_round`.
    """
    sizes, (_, read) = (search.beams, *level_slots(search)[1:]), read_nodes(search)
    rows = rows_at_a_time(rows, search.row_share)
    calls = [_call(pair.target, rows, read, prompt, read)]
    if pair.draft is None:
        return calls
    return calls + [_call(pair.draft, rows, size, prompt, size) for size in sizes[:-1]]


def _call(model: LlamaConfig, rows: int, tokens: int, prompt: int, n_out: int) -> Pass:
    return Pass(model, rows, tokens, prompt, n_out, "nothing", False)
