"""Drafting: growing a tree of candidate prefixes from the settled beams.

Who proposes is exchangeable. A drafter scores the trie children of nodes: a small
language model does, or the popularity of items in training, which needs no model.
Verification never trusts a drafter, so every drafter gives the same list. A better one
only saves calls of the target.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import struct

from atspeed_jax.decoding.base import StepModel, first_token, select_rows
from atspeed_jax.decoding.beams import LOWEST, Beams, Frontier, assign_slots, is_finished
from atspeed_jax.decoding.children import Children, best_children, open_children, score_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.inputs import level_input, prompt_input
from atspeed_jax.decoding.noise import Purpose
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import StepInput


@runtime_checkable
class Drafter(Protocol):
    """Scores children of nodes.

    Hashable, since it is a static jit argument. Its parameters and its cache are traced
    arguments.
    """

    def init_cache(self, batch: int, slots: int) -> Any: ...

    def children(
        self,
        params: Any,
        nodes: Beams,
        inputs: StepInput,
        cache: Any,
        *,
        level: int,
        trie: ItemTrie,
        config: SearchConfig,
    ) -> tuple[Children, Any]:
        """Scores the children of nodes.

        Args:
          params: of the drafter.
          nodes: [B, N] nodes of `level`.
          inputs: the same nodes as model input; at level 0 the whole prompt.
          cache: of the drafter, holding the levels read before.
          level: depth of the nodes.
          trie: the constraint.
          config: settings of the search.

        Returns:
          (children [B, N, R], the cache with `inputs` in it).
        """
        ...


@dataclasses.dataclass(frozen=True)
class ModelDrafter:
    """A small language model with the step contract of the target; params: of the
    model.
    """

    model: StepModel

    def init_cache(self, batch: int, slots: int):
        return self.model.init_cache(batch, slots)

    def children(self, params, nodes, inputs, cache, *, level, trie, config):
        logits, cache = self.model(params, inputs, cache, n_out=nodes.count)
        how = {"norm": config.score_norm, "temperature": config.temperature}
        first = first_token(self.model, config.score_norm)
        return score_children(trie, level, nodes, logits, first_token=first, **how), cache


@dataclasses.dataclass(frozen=True)
class PopularityDrafter:
    """Popularity of items in training, counted on the trie.

    params: `items.trie.popularity_prior`, the log-probability of each edge, per level.
    """

    def init_cache(self, batch: int, slots: int):
        return ()

    def children(self, params, nodes, inputs, cache, *, level, trie, config):
        edge, exists = trie.edges(level, nodes.node)
        exists &= nodes.valid[..., None]
        log_prob = jnp.where(exists, params[level][edge], LOWEST)
        token = jnp.where(exists, trie.child_token(level, edge), 0)
        return Children(nodes, edge, token, log_prob, exists, level=level), cache


class DraftTree(struct.PyTreeNode):
    """The tree of one round.

    nodes[l]: the nodes [B, N_l] of level l, in their slots.
    proposed[l]: their children as the drafter scored them, but finished ones; no entry
      for level L-1, which is never fed to a drafter.
    """

    nodes: dict[int, Beams]
    proposed: dict[int, Children]


def draft_tree(
    drafter: Drafter, params, search: Search, frontier: Frontier, cache, *, levels: range
) -> tuple[DraftTree, Any]:
    """Grows the tree of one round.

    At its level a row puts its settled beams. At each deeper level, at most gamma
    levels away, it puts the W_l best (or drawn) children of the level before. At
    shallower levels it is idle. Finished prefixes (`is_finished`) are in no tree.

    Args:
      drafter: who proposes.
      params: of the drafter.
      search: constraint, users, slots and settings.
      frontier: the settled beams, and the level of each row.
      cache: of the drafter.
      levels: the levels of the tree, from 0 in round 1 and from 1 in later rounds.

    Returns:
      (the tree, the drafter's cache).
    """
    trie, config = search.trie, search.config
    nodes: dict[int, Beams] = {}
    proposed: dict[int, Children] = {}
    drafted = None
    # A Python loop, so that widths, slots and trie rows of a level are static.
    for level in levels:
        if level == 0:
            nodes[0] = frontier.beams
            inputs = prompt_input(search.prompt)
        else:
            nodes[level] = _level_nodes(search, frontier, drafted, level)
            inputs = level_input(nodes[level], level, search.prompt, search.layout, frontier.level)
        # Fed once at every level but the last, even where no row drafts further: a
        # later round finds the cache of all shallower levels complete.
        if level < trie.length - 1:
            children, cache = drafter.children(
                params, nodes[level], inputs, cache, level=level, trie=trie, config=config
            )
            # Noise is conditioned on all siblings, as the target's is. So children that
            # need no drafting are left out only afterwards.
            children = search.selection.perturb(children, search.keys, Purpose.DRAFT)
            children = open_children(trie, children, config.score_norm)
            drafted = best_children(trie, children, search.widths[level])
            proposed[level] = children.replace(perturbed=None)
    return DraftTree(nodes, proposed), cache


def _level_nodes(search: Search, frontier: Frontier, drafted: Beams | None, level: int) -> Beams:
    """Puts settled beams or drafted nodes into the slots of a level, row by row.

    Rows at the level hold their settled beams, but finished ones. Rows at a shallower
    level, at most gamma away, hold drafted nodes. Other rows hold invalid nodes.
    """
    trie, layout, config = search.trie, search.layout, search.config
    settled, row_level = frontier.beams, frontier.level
    settled = settled.replace(valid=settled.valid & ~is_finished(trie, level, settled, config.score_norm))
    if drafted is None:  # the first level of a later round holds settled beams alone: K slots do
        settled = assign_slots(settled, level, layout)
        return settled.replace(valid=settled.valid & (row_level == level)[:, None])
    settled = assign_slots(settled.resize(layout.capacity[level]), level, layout)
    drafted = assign_slots(drafted.resize(layout.capacity[level]), level, layout)
    in_reach = (row_level < level) & (level <= row_level + config.gamma)
    drafted = drafted.replace(valid=drafted.valid & in_reach[:, None])
    return select_rows(row_level == level, settled, drafted)
