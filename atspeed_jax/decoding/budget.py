"""A node budget: of all drafted nodes of a round, at every level, the target reads the best M.

Widths say how much the draft looks at, which is cheap; the budget says how much of it the target is asked about, which
is not. Nodes keep the slots of their level. "Drafted" then means "among the M", so any budget leaves the lists as they
are and only changes the number of calls.
"""

from __future__ import annotations

import jax.numpy as jnp

from atspeed_jax.decoding.base import Layout
from atspeed_jax.decoding.beams import Beams, gather_nodes, largest
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.inputs import StepInput
from atspeed_jax.shapes import NodeBool, NodeInt, RowInt


def within_budget(nodes: dict[int, Beams], at: RowInt, layout: Layout, config: SearchConfig) -> dict[int, Beams]:
    """The nodes of a round, invalid where they are not among a row's best `config.budget` drafted ones.

    Best by the draft's cumulative (or perturbed) score, among equals the shallower, then the first in trie order. So a
    node's ancestors go before it; a draft whose scores rise along a path loses the nodes whose parent is not read.
    Settled beams (the nodes at a row's own level `at` [B]) are always in.
    """
    if config.budget is None or config.budget >= sum(beams.count for level, beams in nodes.items() if level):
        return nodes
    drafted = [beams.valid & (at < level)[:, None] for level, beams in nodes.items()]
    scores = [beams.score if beams.perturbed is None else beams.perturbed for beams in nodes.values()]
    scores, valid = (jnp.concatenate(part, 1) for part in (scores, drafted))
    index, found = largest(scores, valid, config.budget)
    rows = jnp.arange(valid.shape[0])[:, None]
    best = jnp.zeros(valid.shape, bool).at[rows, index].set(found)
    read = jnp.ones((valid.shape[0], layout.slots), bool)  # by slot; what earlier rounds read stays
    kept, start = {}, 0
    for (level, beams), mine in zip(nodes.items(), drafted, strict=True):
        chosen, start = best[:, start : start + beams.count], start + beams.count
        if level:
            parent = jnp.take_along_axis(read, jnp.maximum(beams.path[..., level - 1], 0), 1)
            beams = beams.replace(valid=beams.valid & (~mine | chosen & parent))
            begin = layout.offset[level]
            read = read.at[:, begin : begin + beams.count].set(beams.valid)
        kept[level] = beams
    return kept


def node_capacity(config: SearchConfig, levels: range) -> int | None:
    """Returns the most nodes below the root that a target call of `levels` reads; None for all.

    The budget, and in later rounds, whose first level holds settled beams, these too.
    """
    if config.budget is None:
        return None
    return config.budget + (0 if 0 in levels else config.beams)


def compact(read: StepInput, valid: NodeBool, capacity: int) -> tuple[StepInput, NodeInt]:
    """Returns the valid ones of N nodes, at most `capacity` per row, as an input of `capacity` tokens.

    Second, the place of each node in that input [B, N]; any place if it is not valid.
    """
    order = jnp.argsort(~valid, axis=1, stable=True)[:, :capacity]
    return gather_nodes(read, order), jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)
