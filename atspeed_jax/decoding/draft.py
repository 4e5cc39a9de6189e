"""Drafting: growing a tree of candidate prefixes from the settled beams.

Who proposes is exchangeable. A drafter scores the trie children of nodes: a draft language model, or the catalogue's
popularity prior, which needs no model at all. Verification never trusts it, so any drafter gives the same list; a
better one only saves calls.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp

from atspeed_jax.decoding import noise
from atspeed_jax.decoding.base import Layout, Prompt, StepModel, select_rows
from atspeed_jax.decoding.beams import LOWEST, Beams, assign_slots, is_finished
from atspeed_jax.decoding.children import Children, best_children, open_children, score_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.inputs import StepInput, level_input, prompt_input
from atspeed_jax.decoding.noise import Purpose
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import RowInt


@runtime_checkable
class Drafter(Protocol):
    """Scores children of nodes.

    Hashable (a static jit argument); its parameters and cache are arguments.
    """

    def init_cache(self, batch: int, slots: int) -> Any: ...

    def children(
        self,
        params: Any,
        trie: ItemTrie,
        level: int,
        nodes: Beams,
        inputs: StepInput,
        cache: Any,
        config: SearchConfig,
    ) -> tuple[Children, Any]:
        """Children of the nodes of `level`, which `inputs` feeds (the whole prompt at level 0)."""
        ...


@dataclasses.dataclass(frozen=True)
class ModelDrafter:
    """A small language model under the same step contract as the target; params are the model's."""

    model: StepModel

    def init_cache(self, batch: int, slots: int):
        return self.model.init_cache(batch, slots)

    def children(self, params, trie, level, nodes, inputs, cache, config):
        logits, cache = self.model(
            params, inputs.tokens, inputs.positions, inputs.slots, inputs.mask, cache, n_out=nodes.count
        )
        return score_children(trie, level, nodes, logits, config.score_norm, config.temperature), cache


@dataclasses.dataclass(frozen=True)
class PopularityDrafter:
    """Training popularity counted on the trie; params are `items.trie.popularity_prior`: log-probability per edge, per
    level."""

    def init_cache(self, batch: int, slots: int):
        return ()

    def children(self, params, trie, level, nodes, inputs, cache, config):
        edge, exists = trie.edges(level, nodes.node)
        exists &= nodes.valid[..., None]
        log_prob = jnp.where(exists, params[level][edge], LOWEST)
        return Children(edge, jnp.where(exists, trie.child_token(level, edge), 0), log_prob, exists), cache


def draft_tree(
    drafter: Drafter,
    params,
    trie: ItemTrie,
    prompt: Prompt,
    layout: Layout,
    config: SearchConfig,
    settled: Beams,
    at: RowInt,
    cache,
    levels: range,
) -> tuple[dict[int, Beams], dict[int, Children], Any]:
    """Nodes of each level in `levels`, placed in their slots; the children that the drafter proposed for them; and the
    drafter's cache.

    settled: K beams of each row at its own level `at` [B]. At that level a row puts its settled beams, up to gamma
    levels above it the drafter's best (or drawn, see `SearchConfig.mode`) W_l children of the level before, and nothing
    below (idle). Finished prefixes (`beams.finished`) are never among them. Every level but the
    last is fed to the drafter once, even where it drafts no further: its cache stays complete.
    """
    nodes: dict[int, Beams] = {}
    proposed: dict[int, Children] = {}
    drafted = None
    for level in levels:
        if level == 0:
            nodes[0] = settled
            inputs = prompt_input(prompt)
        else:
            nodes[level] = _level_nodes(trie, settled, drafted, level, layout, at, config)
            inputs = level_input(nodes[level], level, prompt, layout, at)
        if level < trie.length - 1:
            children, cache = drafter.children(params, trie, level, nodes[level], inputs, cache, config)
            # Noise is conditioned on all siblings, as the target's is, those that need no drafting too.
            children = noise.perturb(config.mode, Purpose.DRAFT, prompt.keys, level, nodes[level], children)
            children = open_children(trie, level, children, config.score_norm)
            drafted = best_children(trie, level, nodes[level], children, config.widths[level])
            proposed[level] = children.replace(perturbed=None)
    return nodes, proposed, cache


def _level_nodes(
    trie: ItemTrie,
    settled: Beams,
    drafted: Beams | None,
    level: int,
    layout: Layout,
    at: RowInt,
    config: SearchConfig,
) -> Beams:
    """Nodes of one level: settled beams (but finished ones) in rows standing at it, drafted ones in rows that stand
    above and reach it, else invalid."""
    settled = settled.replace(valid=settled.valid & ~is_finished(trie, level, settled, config.score_norm))
    if drafted is None:  # the first level of a later round holds settled beams alone, so K places do
        mine = assign_slots(settled, level, layout)
        return mine.replace(valid=mine.valid & (at == level)[:, None])
    mine = assign_slots(settled.resize(layout.capacity[level]), level, layout)
    others = assign_slots(drafted.resize(layout.capacity[level]), level, layout)
    in_reach = (at < level) & (level <= at + config.gamma)
    return select_rows(at == level, mine, others.replace(valid=others.valid & in_reach[:, None]))
