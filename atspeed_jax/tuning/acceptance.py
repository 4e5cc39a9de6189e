"""How many target calls users need, for any widths, gamma and budget, without a call.

The target's beams of a level are the same whoever drafts. Plain beam search therefore
gives them once, and all that a setting changes is which of them the draft proposes. A
draft's proposals at a level depend on the level that the round starts from and on the
widths of the levels between. `Acceptance` asks the draft for each such case once, and
answers thousands of settings from what it keeps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Int

from atspeed_jax.decoding.base import Layout, Prompt, StepModel
from atspeed_jax.decoding.beam_search import search_levels
from atspeed_jax.decoding.beams import Beams, assign_slots, is_finished, largest, root_beams
from atspeed_jax.decoding.budget import lead
from atspeed_jax.decoding.children import Children, open_children, select_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import Drafter
from atspeed_jax.decoding.inputs import level_input, prompt_input
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import NodeBool, NodeFloat, NodeInt

NEVER = int(np.iinfo(np.int32).max)  # nodes that no budget allows
NOWHERE = -1  # place of a beam that is not among the best of its level


class TargetBeams(struct.PyTreeNode):
    """What plain beam search finds for B users.

    levels: settled beams [B, K] of levels 1..L-1, in trie order.
    waits [B, L-1, K]: whether a level waits for a beam: it exists and is not finished.
    """

    levels: tuple[Beams, ...]
    waits: NodeBool


class Proposed(struct.PyTreeNode):
    """The best candidates of a level in trie order, as many as the level may be wide.

    score, valid [B, M]: of the candidates.
    rank [B, M]: place of each candidate in the order of scores, M for invalid ones.
    parent [B, M]: place of each one's parent among the candidates of the level before.
    place [B, K]: place of each of the target's beams among the M, `NOWHERE` if it is
      not among them.
    """

    score: NodeFloat
    valid: NodeBool
    rank: NodeInt
    parent: NodeInt
    place: Int[Array, "B K"]


class Fed(NamedTuple):
    """Children of the nodes of a level as the draft scores them, and its cache."""

    children: Children
    cache: Any


class Acceptance:
    """Target calls of N users under any strict setting of one drafter, K and norm.

    Every answer equals what the decoder does, up to rounding: a draft that scores two
    candidates alike to the last bits may order them otherwise in a call of another
    shape.
    """

    def __init__(
        self,
        target: tuple[StepModel, Any],
        drafter: tuple[Drafter, Any],
        trie: ItemTrie,
        prompts: Sequence[Prompt],
        widest: SearchConfig,
    ):
        """Runs plain beam search and the draft's reading of its beams.

        Args:
          target: the model and its parameters.
          drafter: the drafter and its parameters.
          trie: the constraint.
          prompts: of the users, batch by batch.
          widest: K, norm, and the largest width of each level that will be asked about
            (resolved).
        """
        self._widest, self._length = widest, trie.length
        self._parts = [_Part(target, drafter, Search.of(trie, prompt, widest)) for prompt in prompts]
        self._waits = np.concatenate([np.asarray(part.target.waits) for part in self._parts])
        self._known: dict[tuple[int, tuple[int, ...]], Proposed] = {}
        self._needed: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

    def calls(self, search: SearchConfig) -> np.ndarray:
        """Target calls of each user, [N].

        Args:
          search: K, norm and at most the widths that this object was made for,
            resolved.
        """
        return self.calls_by_budget(search, [search.budget])[0]

    def calls_by_budget(self, search: SearchConfig, budgets: Sequence[int | None]) -> np.ndarray:
        """Target calls of each user under several budgets, [budgets, N].

        Args:
          search: see `calls`; its budget is not looked at.
          budgets: drafted nodes that a target call reads; None for all.
        """
        reached = [self._reached(start, search, budgets) for start in range(self._length)]
        level, calls = np.zeros_like(reached[0]), np.zeros_like(reached[0])
        for _ in range(self._length):
            unfinished = level < self._length
            calls += unfinished
            after = np.select([level == start for start in range(self._length)], reached, level)
            level = np.where(unfinished, after, level)
        return calls

    def _reached(self, start: int, search: SearchConfig, budgets: Sequence[int | None]) -> np.ndarray:
        """The level that a round from level `start` settles last, [budgets, N]."""
        widths, deepest = search.resolved_widths(self._length), min(start + search.gamma, self._length - 1)
        most = np.array([NEVER - 1 if budget is None else budget for budget in budgets])[:, None]
        reached = np.full((len(most), len(self._waits)), self._length)
        for level in range(self._length - 1, start, -1):
            if level > deepest:
                missing = self._waits[:, level - 1].any(1)
            else:
                missing = self._budget_needed(start, widths[start:deepest])[:, level - start - 1] > most
            reached = np.where(missing, level, reached)
        return reached

    def _budget_needed(self, start: int, widths: tuple[int, ...]) -> np.ndarray:
        """Returns `_least_budget` of the levels start + 1, ... of these widths."""
        if (start, widths) not in self._needed:
            leads, places, parents = [], [], None
            for depth, width in enumerate(widths, 1):
                proposed = self._proposed(start, widths[: depth - 1])
                parents = _leads(proposed, width, depth, parents, beams=self._widest.beams)
                leads.append(np.asarray(parents))
                places.append(np.asarray(proposed.place))
            waits = [self._waits[:, start + depth] for depth in range(len(widths))]
            self._needed[start, widths] = _least_budget(leads, places, waits)
        return self._needed[start, widths]

    def _proposed(self, start: int, widths: tuple[int, ...]) -> Proposed:
        """What the draft proposes to all users, see `_Part.proposal`."""
        if (start, widths) not in self._known:
            parts = [part.proposal(start, widths)[0] for part in self._parts]
            self._known[start, widths] = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        return self._known[start, widths]


class _Part:
    """The users of one prompt batch."""

    def __init__(self, target: tuple[StepModel, Any], drafter: tuple[Drafter, Any], search: Search):
        self._drafter, self._search = drafter, search
        self.target = _target_beams(*target, search)
        root = root_beams(search.prompt, search.length)
        cache = drafter[0].init_cache(search.batch, search.layout.slots)
        self._settled: list[Fed] = []  # per level 0..L-2, the draft's reading of the target's beams
        for level, beams in enumerate((root, *self.target.levels[:-1])):
            fed = _feed(*drafter, search, beams, cache, level=level)
            self._settled.append(fed)
            cache = fed.cache
        self._known: dict[tuple[int, tuple[int, ...]], tuple[Fed, NodeInt]] = {}

    def proposal(self, start: int, widths: tuple[int, ...]) -> tuple[Proposed, Beams]:
        """What the draft proposes behind the levels start + 1, ... of these widths.

        Returns the candidates, and the same as nodes in their slots.
        """
        level = start + len(widths) + 1
        if not widths:
            children = self._settled[start].children
            everyone = jnp.zeros(children.edge.shape[:2], jnp.int32)
            return _propose(self._search, self.target, children, everyone, 1, level=level)
        read, rank = self._read(start, widths[:-1])
        return _propose(self._search, self.target, read.children, rank, widths[-1], level=level)

    def _read(self, start: int, widths: tuple[int, ...]) -> tuple[Fed, NodeInt]:
        """The draft's reading of `proposal(start, widths)`, and the rank of its nodes."""
        if (start, widths) not in self._known:
            before = self._read(start, widths[:-1])[0] if widths else self._settled[start]
            (proposed, nodes), level = self.proposal(start, widths), start + len(widths) + 1
            fed = _feed(*self._drafter, self._search, nodes, before.cache, level=level)
            self._known[start, widths] = fed, proposed.rank
        return self._known[start, widths]


@functools.partial(jax.jit, static_argnames=("target",))
def _target_beams(target: StepModel, params, search: Search) -> TargetBeams:
    """Runs plain beam search, and puts its beams into the slots of `search`."""
    trie, config = search.trie, search.config
    how = {"beams": config.beams, "score_norm": config.score_norm}
    found = search_levels(target, params, trie, search.prompt, **how)[0][:-1]
    plain = Layout(search.layout.prompt, (1,) + (config.beams,) * (trie.length - 1))
    shift = jnp.array(search.layout.offset) - jnp.array(plain.offset)
    levels, waits = [], []
    for level, beams in enumerate(found, start=1):
        moved = beams.path.at[..., :level].add(shift[:level])
        levels.append(assign_slots(beams.replace(path=moved), level, search.layout))
        waits.append(beams.valid & ~is_finished(trie, level, beams, config.score_norm))
    empty = jnp.zeros((search.batch, 0, config.beams), bool)
    return TargetBeams(tuple(levels), jnp.stack(waits, 1) if waits else empty)


@functools.partial(jax.jit, static_argnames=("drafter", "level"))
def _feed(drafter: Drafter, params, search: Search, nodes: Beams, cache, *, level: int) -> Fed:
    """Has the draft read the nodes of a level."""
    trie, prompt = search.trie, search.prompt
    if level == 0:
        inputs = prompt_input(prompt)
    else:
        everyone = jnp.zeros((search.batch,), jnp.int32)
        inputs = level_input(nodes, level, prompt, search.layout, everyone)
    children, cache = drafter.children(params, nodes, inputs, cache, level=level, trie=trie, config=search.config)
    last = level + 2 >= trie.length  # the cache is read no more, and takes much memory
    return Fed(children, () if last else cache)


@functools.partial(jax.jit, static_argnames=("level",))
def _propose(
    search: Search, target: TargetBeams, children: Children, rank: NodeInt, width: int, *, level: int
) -> tuple[Proposed, Beams]:
    """Selects the best children of the nodes whose rank is below `width`.

    Args:
      children: of the nodes of the level before.
      rank: [B, N] of these nodes.
      level: of the children.
    """
    trie, count = search.trie, search.widths[level - 1]
    children = open_children(trie, children, search.config.score_norm)
    exists = children.exists & (rank < width)[..., None]
    batch = exists.shape[0]
    total = children.total.reshape(batch, -1)
    index, found = largest(total, exists.reshape(batch, -1), count)
    nodes = select_children(trie, children, index, found).resize(count)
    # Back into trie order, in which an index among the children sorts.
    order = jnp.argsort(jnp.where(found, index, total.shape[1]), 1)
    order = jnp.pad(order, ((0, 0), (0, count - order.shape[1])), constant_values=count)
    parent = jnp.maximum(nodes.path[..., level - 1] - search.layout.offset[level - 1], 0)
    nodes = assign_slots(nodes, level, search.layout)
    own = (nodes.node[:, None] == target.levels[level - 1].node[..., None]) & nodes.valid[:, None]
    place = jnp.where(own.any(-1), own.argmax(-1), NOWHERE)
    rank = jnp.where(nodes.valid, order, count)
    return Proposed(nodes.score, nodes.valid, rank, parent, place), nodes


@functools.partial(jax.jit, static_argnames=("beams",))
def _leads(proposed: Proposed, width: int, depth: int, parents: NodeFloat | None, *, beams: int) -> NodeFloat:
    """Leads of the `width` best candidates of a level (`budget.lead`), -inf for others.

    Args:
      depth: levels below the settled beams.
      parents: leads at the level before; None for the first level.
    """
    drafted = proposed.valid & (proposed.rank < width)
    free = jnp.full(drafted.shape, jnp.inf)
    above = free if parents is None else jnp.take_along_axis(parents, proposed.parent, 1)
    leads = lead(proposed.score, drafted, jnp.full((1, 1), depth), above, beams=beams)
    return jnp.where(drafted, leads, -jnp.inf)


def _least_budget(leads: list[np.ndarray], places: list[np.ndarray], waits: list[np.ndarray]) -> np.ndarray:
    """Counts the nodes that a budget must allow.

    Args:
      leads: per level, of the nodes [N, M], -inf for nodes that are not drafted.
      places: per level, `Proposed.place`.
      waits: per level, the beams that a level waits for [N, K].

    Returns:
      Least budget that drafts the beams of a level and of those before [N, levels],
      `NEVER` if none does.
    """
    every = np.concatenate(leads, 1)
    number, start, needed = np.arange(every.shape[1]), 0, []
    for own, place, wait in zip(leads, places, waits, strict=True):
        of_beam = np.where(place == NOWHERE, -np.inf, np.take_along_axis(own, np.maximum(place, 0), 1))
        last = np.where(wait, of_beam, np.inf).min(1, keepdims=True)
        # Of equals the shallower node comes first, then the first in trie order.
        at = start + np.where(wait & (of_beam == last), place, NOWHERE).max(1, keepdims=True)
        count = ((every > last) | ((every == last) & (number <= at))).sum(1)
        needed.append(np.where(last[:, 0] == -np.inf, NEVER, np.where(wait.any(1), count, 0)))
        start += own.shape[1]
    return np.maximum.accumulate(np.stack(needed, 1), 1)
