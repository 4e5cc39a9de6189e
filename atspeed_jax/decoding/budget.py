"""A node budget: of all drafted nodes of a round the target reads the M most promising.

Widths say how many nodes the draft looks at, which is cheap. The budget says how many
of them the target reads, which is not. Nodes keep the slots of their level. "Drafted"
then means "among the M": any budget gives the same lists and only changes the number of
calls.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from atspeed_jax.decoding.base import Layout
from atspeed_jax.decoding.beams import Beams, gather_nodes, largest
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.shapes import NodeBool, NodeFloat, NodeInt, RowInt, StepInput


def threshold_rank(beams: int) -> int:
    """Returns the rank in a level, from 1, of the score that is the level's threshold.

    A target mostly finds its K beams above it.
    """
    return beams + beams // 2


def lead(score: NodeFloat, drafted: NodeBool, depth: Int[Array, "_ 1"], parent: NodeFloat, *, beams: int) -> NodeFloat:
    """Computes how far nodes are ahead of the threshold of their level.

    A round saves most calls if every level holds its K beams. Scores fall from level to
    level, so scores alone would leave the deep levels without nodes. The threshold is
    the score of rank `threshold_rank`, or the last score of a smaller level. The error
    of a draft adds up along a path, so distances count less at deep levels.

    Args:
      score: of the nodes of one level, by which nodes are ranked.
      drafted: nodes that the draft proposed; the lead of others has no meaning.
      depth: levels below the settled beams, 1 for their children; [B, 1], or [1, 1].
      parent: lead of the parent of each node, infinite for a settled beam. A node is
        never ahead of its parent.
      beams: K.
    """
    index, found = largest(score, drafted, threshold_rank(beams))
    best = jnp.where(found, jnp.take_along_axis(score, index, 1), jnp.inf)
    return jnp.minimum((score - best.min(1, keepdims=True)) / depth, parent)


def within_budget(nodes: dict[int, Beams], row_level: RowInt, layout: Layout, config: SearchConfig) -> dict[int, Beams]:
    """Invalidates the drafted nodes that are not among the most promising M of a row.

    M is `config.budget`. The largest `lead` comes first; among equals the shallower
    node, then the first in trie order. So a node is read only if its parent is.

    Args:
      nodes: nodes of each level, in their slots.
      row_level: [B] the level of each row. Its nodes there are settled beams, always
        read.
      layout: slots of the levels.
      config: settings of the search.

    Returns:
      The same nodes, some of them invalid.
    """
    below = {level: beams for level, beams in nodes.items() if level}
    if config.budget is None or config.budget >= sum(beams.count for beams in below.values()):
        return nodes
    drafted = {level: beams.valid & (row_level < level)[:, None] for level, beams in below.items()}
    # The lead of the node in each slot; settled nodes hold no child back.
    in_slots, leads = jnp.full((row_level.shape[0], layout.slots), jnp.inf), []
    for level, beams in below.items():
        parent = jnp.take_along_axis(in_slots, jnp.maximum(beams.path[..., level - 1], 0), 1)
        depth = jnp.maximum(level - row_level, 1)[:, None]
        leads.append(lead(beams.key, drafted[level], depth, parent, beams=config.beams))
        slots = slice(layout.offset[level], layout.offset[level] + beams.count)
        in_slots = in_slots.at[:, slots].set(jnp.where(drafted[level], leads[-1], jnp.inf))
    valid = jnp.concatenate(list(drafted.values()), 1)
    index, found = largest(jnp.concatenate(leads, 1), valid, config.budget)
    chosen = jnp.zeros(valid.shape, bool).at[jnp.arange(valid.shape[0])[:, None], index].set(found)
    kept, start = dict(nodes), 0
    for level, beams in below.items():
        read = ~drafted[level] | chosen[:, start : start + beams.count]
        kept[level], start = beams.replace(valid=beams.valid & read), start + beams.count
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
    return gather_nodes(read.replace(first_slot=None), order), jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)
