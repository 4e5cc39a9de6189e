"""What one model call reads: the prompt, the nodes of a level, or several of these together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.decoding.beams import UNPLACED, Beams
from atspeed_jax.shapes import (
    RowInt,
    SlotMask,
    Tokens,
)


class StepInput(struct.PyTreeNode):
    """What one model call reads: tokens, positions, slots [B, T], and what each token sees."""

    tokens: Tokens
    positions: Tokens
    slots: Tokens
    mask: SlotMask


def prompt_input(prompt: Prompt) -> StepInput:
    """The prompt under the causal mask; positions start at 0 on the first real token of each row."""
    positions = jnp.maximum(jnp.cumsum(prompt.valid, 1) - 1, 0)
    own = jnp.broadcast_to(jnp.arange(prompt.tokens.shape[1], dtype=jnp.int32), prompt.tokens.shape)
    return StepInput(prompt.tokens, positions, own, SlotMask.causal(prompt.valid))


def level_input(beams: Beams, level: int, prompt: Prompt, layout: Layout, settled: RowInt) -> StepInput:
    """Placed beams of `level` >= 1 as model input: each sees the valid prompt and its own path.

    settled [B]: the level each row stands at. A row already past `level` is idle there and writes nowhere: its old
    nodes of this level may be ancestors still in use. Invalid nodes write into their own slot, which nobody's path
    holds.
    """
    slots = layout.offset[level] + jnp.arange(beams.count, dtype=jnp.int32)
    slots = jnp.where((settled <= level)[:, None], slots, layout.slots)
    positions = jnp.broadcast_to((prompt.last_position + level)[:, None], slots.shape)
    valid = jnp.broadcast_to(prompt.valid[:, None], (*slots.shape, layout.prompt))
    return StepInput(beams.tokens[..., level - 1], positions, slots, SlotMask(valid, beams.path[..., 1 : level + 1]))


def concatenate_inputs(*inputs: StepInput) -> StepInput:
    """Several inputs read in one call."""
    longest = max(part.mask.path.shape[-1] for part in inputs)

    def pad(part: StepInput) -> StepInput:
        path = part.mask.path
        path = jnp.pad(path, ((0, 0), (0, 0), (0, longest - path.shape[-1])), constant_values=UNPLACED)
        return part.replace(mask=part.mask.replace(path=path))

    return jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *map(pad, inputs))
