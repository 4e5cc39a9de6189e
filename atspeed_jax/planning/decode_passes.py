"""The model calls of a decode, as passes whose cost can be counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atspeed_jax.decoding.budget import level_slots, read_nodes
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.row_compaction import rows_at_a_time
from atspeed_jax.models.attention import MOST_SLOTS
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.planning.estimate import Pass


class Pair(NamedTuple):
    """The configs of the two models; without a draft model, `draft` is None."""

    target: LlamaConfig
    draft: LlamaConfig | None


def plain_search(target: LlamaConfig, beams: int, length: int, prompt: int, rows: int, head: int = 0) -> list[Pass]:
    """Lists the calls of plain beam search.

    Args:
      target: config of the model.
      beams: K.
      length: codes of an id.
      prompt: tokens of the prompt.
      rows: users.
      head: tokens of the prompt that are a shared head.
    """
    seen = _seen(prompt, (beams,) * (length - 1))
    calls = [_call(target, rows, prompt - head, prompt, 1)]
    return calls + [_call(target, rows, beams, seen, beams)] * (length - 1)


def first_round(pair: Pair, search: SearchConfig, prompt: int, rows: int, head: int = 0) -> list[Pass]:
    """Lists the calls of round 1 of a speculative search.

    Args:
      pair: the models.
      search: resolved settings.
      prompt: tokens of the prompt.
      rows: users.
      head: tokens of the prompt that are a shared head.
    """
    sizes, (read, _) = level_slots(search), read_nodes(search)
    seen = _seen(prompt, sizes)
    calls = [_call(pair.target, rows, prompt - head + read, seen, 1 + read)]
    if pair.draft is None:
        return calls
    calls.append(_call(pair.draft, rows, prompt - head, prompt, 1))
    return calls + [_call(pair.draft, rows, size, seen, size) for size in sizes[:-1]]


def later_round(pair: Pair, search: SearchConfig, prompt: int, rows: int) -> list[Pass]:
    """Lists the calls of a round after the first, in which a part of the rows is read.

    Args: see `first_round`.
    """
    slots, (_, read) = level_slots(search), read_nodes(search)
    sizes, seen = (search.beams, *slots[1:]), _seen(prompt, slots)
    rows = rows_at_a_time(rows, search.row_share)
    calls = [_call(pair.target, rows, read, seen, read)]
    if pair.draft is None:
        return calls
    return calls + [_call(pair.draft, rows, size, seen, size) for size in sizes[:-1]]


def _seen(prompt: int, slots: Sequence[int]) -> int:
    """Counts the slots that a token of the tree is multiplied with: those of the prompt
    and, as `models.attention.attend` does, all slots of a narrow tree or a path.

    Args:
      prompt: tokens of the prompt.
      slots: of levels 1..L-1.
    """
    return prompt + (sum(slots) if sum(slots) <= MOST_SLOTS else len(slots))


def _call(model: LlamaConfig, rows: int, tokens: int, seen: int, n_out: int) -> Pass:
    return Pass(model, rows, tokens, seen, n_out, "nothing", False)
