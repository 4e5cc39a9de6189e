"""What one model call reads: the prompt, the nodes of a level, or several of these."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.decoding.beams import UNPLACED, Beams
from atspeed_jax.shapes import RowInt, SlotMask, StepInput


def prompt_input(prompt: Prompt) -> StepInput:
    """Reads the prompt under the causal mask, but a shared head, which the cache holds."""
    if prompt.head is None:
        return StepInput.causal(prompt.tokens, prompt.valid)
    inputs, read = StepInput.causal(prompt.tokens, prompt.slots), prompt.head.length
    rest = jax.tree.map(lambda x: x[:, read:], inputs)
    # Padding comes behind the head, and yet must see nothing: its range is empty.
    begin = jnp.broadcast_to(prompt.first_slot[:, None], rest.tokens.shape)
    return rest.replace(mask=rest.mask.replace(begin=begin, head=read), first_slot=read)


def level_input(beams: Beams, level: int, prompt: Prompt, layout: Layout, row_level: RowInt) -> StepInput:
    """Reads the nodes of `level` >= 1; each sees the valid prompt and its path.

    Args:
      beams: [B, N] nodes with slots (`assign_slots`).
      level: depth of the nodes.
      prompt: B users.
      layout: which slots the level has.
      row_level: [B] the level that each row stands at. A row past `level` is idle here.
    """
    slots = layout.offset[level] + jnp.arange(beams.count, dtype=jnp.int32)
    # An idle row writes nowhere (slot S): its old nodes of this level may be ancestors
    # that are still in use. Invalid nodes write into slots that no path holds.
    slots = jnp.where((row_level <= level)[:, None], slots, layout.slots)
    positions = jnp.broadcast_to((prompt.last_position + level)[:, None], slots.shape)
    begin = jnp.broadcast_to(prompt.first_slot[:, None], slots.shape)
    end, path = jnp.full_like(begin, layout.prompt), beams.path[..., 1 : level + 1]
    mask = SlotMask(begin, end, path, layout.prompt, prompt.head_length)
    return StepInput(beams.tokens[..., level - 1], positions, slots, mask, first_slot=layout.offset[level])


def concatenate_inputs(*inputs: StepInput) -> StepInput:
    """Puts the tokens of several inputs one after the other, to be read in one call."""
    # A path has one entry per level; shallower nodes get entries that show no slot.
    longest = max(part.mask.path.shape[-1] for part in inputs)

    def pad(part: StepInput) -> StepInput:
        path = part.mask.path
        path = jnp.pad(path, ((0, 0), (0, 0), (0, longest - path.shape[-1])), constant_values=UNPLACED)
        return part.replace(mask=part.mask.replace(path=path), first_slot=None)

    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *map(pad, inputs))
    return joined.replace(first_slot=_first_slot(inputs))


def _first_slot(inputs: Sequence[StepInput]) -> int | None:
    """Returns the first slot if each input goes on where the one before it ends."""
    expected = inputs[0].first_slot
    for part in inputs:
        if expected is None or part.first_slot != expected:
            return None
        expected += part.tokens.shape[1]
    return inputs[0].first_slot
