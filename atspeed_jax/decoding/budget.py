"""A node budget: of all drafted nodes of a round the target reads the best M.

Widths say how many nodes the draft looks at, which is cheap. The budget says how many
of them the target reads, which is not. Nodes keep the slots of their level. "Drafted"
then means "among the M": any budget gives the same lists and only changes the number of
calls.
"""

from __future__ import annotations

import jax.numpy as jnp

from atspeed_jax.decoding.base import Layout
from atspeed_jax.decoding.beams import Beams, gather_nodes, largest
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.shapes import NodeBool, NodeInt, RowInt, StepInput


def within_budget(nodes: dict[int, Beams], row_level: RowInt, layout: Layout, config: SearchConfig) -> dict[int, Beams]:
    """Invalidates the drafted nodes that are not among the best M of a row.

    M is `config.budget`.

    The best are those of the highest key; among equals the shallower, then the first in
    trie order. A node is read only if its parent is: a draft whose scores rise along a
    path loses the nodes whose parent is not read.

    Args:
      nodes: nodes of each level, in their slots.
      row_level: [B] the level of each row. Its nodes there are settled beams, always
        read.
      layout: slots of the levels.
      config: settings of the search.

    Returns:
      The same nodes, some of them invalid.
    """
    if config.budget is None or config.budget >= sum(beams.count for level, beams in nodes.items() if level):
        return nodes
    is_drafted = [beams.valid & (row_level < level)[:, None] for level, beams in nodes.items()]
    scores, valid = jnp.concatenate([beams.key for beams in nodes.values()], 1), jnp.concatenate(is_drafted, 1)
    index, found = largest(scores, valid, config.budget)
    rows = jnp.arange(valid.shape[0])[:, None]
    best = jnp.zeros(valid.shape, bool).at[rows, index].set(found)
    # Whether the node of each slot is read. Settled nodes of earlier rounds are read
    # already.
    read = jnp.ones((valid.shape[0], layout.slots), bool)
    kept, start = {}, 0
    for (level, beams), drafted in zip(nodes.items(), is_drafted, strict=True):
        chosen, start = best[:, start : start + beams.count], start + beams.count
        if level:
            parent = jnp.take_along_axis(read, jnp.maximum(beams.path[..., level - 1], 0), 1)
            beams = beams.replace(valid=beams.valid & (~drafted | chosen & parent))
            begin = layout.offset[level]
            read = read.at[:, begin : begin + beams.count].set(beams.valid)
        kept[level] = beams
    return kept


def node_capacity(config: SearchConfig, *, with_prompt: bool) -> int | None:
    """Returns the most nodes below the root that a target call reads; None for all.

    A call without the prompt is of a later round: its first level holds K settled
    beams, which the budget does not count.
    """
    if config.budget is None:
        return None
    return config.budget + (0 if with_prompt else config.beams)


def level_slots(search: SearchConfig) -> list[int]:
    """Slots of levels 1..L-1 of a resolved search: for its beams or its drafted nodes."""
    return [max(search.beams, width) for width in search.resolved_widths(len(search.widths) + 1)]


def read_nodes(search: SearchConfig) -> tuple[int, int]:
    """Nodes of a row that a target call reads in round 1 and in a later round.

    Args:
      search: resolved.
    """
    slots = level_slots(search)
    first, later = sum(slots[: search.gamma]), search.beams + sum(slots[1:])
    most_first, most_later = (node_capacity(search, with_prompt=prompt) for prompt in (True, False))
    return min(first, most_first or first), min(later, most_later or later)


def compact(read: StepInput, valid: NodeBool, capacity: int) -> tuple[StepInput, NodeInt]:
    """Moves the valid nodes to the front of an input and cuts it.

    Args:
      read: N nodes.
      valid: [B, N], at most `capacity` per row.
      capacity: tokens of the input that is returned.

    Returns:
      (input of `capacity` tokens, place of each node in it [B, N], without meaning for
      invalid nodes).
    """
    order = jnp.argsort(~valid, axis=1, stable=True)[:, :capacity]
    return gather_nodes(read, order), jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)
