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
from jaxtyping import Float, Int

from atspeed_jax.decoding.base import Layout, Prompt, StepModel
from atspeed_jax.decoding.beam_search import search_levels
from atspeed_jax.decoding.beams import LOWEST, Beams, assign_slots, is_finished, largest, root_beams
from atspeed_jax.decoding.children import Children, open_children, select_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import Drafter
from atspeed_jax.decoding.inputs import level_input, prompt_input
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import NodeBool, NodeInt

NEVER = int(np.iinfo(np.int32).max)  # rank of a beam that is not among the best of its level


class TargetBeams(struct.PyTreeNode):
    """What plain beam search finds for B users.

    levels: settled beams [B, K] of levels 1..L-1, in trie order.
    parents: place of each beam's parent among those of the level before, [B, K] each.
    waits [B, L-1, K]: whether a level waits for a beam: it exists and is not finished.
    """

    levels: tuple[Beams, ...]
    parents: tuple[NodeInt, ...]
    waits: NodeBool


class Proposal(struct.PyTreeNode):
    """The best candidates of a level, as many as the level may ever be wide.

    nodes [B, M]: in trie order, in their slots.
    rank [B, M]: place of each node in the order of scores, M for invalid nodes.
    better [B, L-1, K]: how many of the M come before each of the target's beams of
      levels 1..L-1, as a budget orders nodes. At the level of the proposal this is the
      rank of the beam itself, `NEVER` if it is not among the M.
    """

    nodes: Beams
    rank: NodeInt
    better: Int[Array, "B M K"]


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
        self._known: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

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
        better = {level: self._better(start, widths[start : level - 1]) for level in range(start + 1, deepest + 1)}
        # A budget ranks the drafted nodes of all levels together.
        place = np.sum([np.minimum(own, widths[level - 1]) for level, own in better.items()], 0)
        most = np.array([NEVER if budget is None else budget for budget in budgets])[:, None]
        reached = np.full((len(most), len(self._waits)), self._length)
        for level in range(self._length - 1, start, -1):
            waits = self._waits[:, level - 1]
            if level > deepest:
                missing = waits.any(1, keepdims=True).T
            else:
                narrow = (waits & (better[level][:, level - 1] >= widths[level - 1])).any(1)
                missing = narrow | (np.where(waits, place[:, level - 1], -1).max(1) >= most)
            reached = np.where(missing, level, reached)
        return reached

    def _better(self, start: int, widths: tuple[int, ...]) -> np.ndarray:
        """`Proposal.better` of all users, at the level behind `widths`."""
        if (start, widths) not in self._known:
            parts = [np.asarray(part.proposal(start, widths).better) for part in self._parts]
            self._known[start, widths] = np.concatenate(parts)
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
        self._scores = [
            _draft_scores(search, self.target, tuple(fed.children for fed in self._settled), start=start)
            for start in range(search.length - 1)
        ]
        self._known: dict[tuple[int, tuple[int, ...]], tuple[Fed, NodeInt]] = {}

    def proposal(self, start: int, widths: tuple[int, ...]) -> Proposal:
        """What the draft proposes behind the levels start + 1, ... of these widths."""
        level, scores = start + len(widths) + 1, self._scores[start]
        if not widths:
            children = self._settled[start].children
            everyone = jnp.zeros(children.edge.shape[:2], jnp.int32)
            return _propose(self._search, self.target, scores, children, everyone, 1, level=level)
        read, rank = self._read(start, widths[:-1])
        return _propose(self._search, self.target, scores, read.children, rank, widths[-1], level=level)

    def _read(self, start: int, widths: tuple[int, ...]) -> tuple[Fed, NodeInt]:
        """The draft's reading of `proposal(start, widths)`, and the rank of its nodes."""
        if (start, widths) not in self._known:
            before = self._read(start, widths[:-1])[0] if widths else self._settled[start]
            nodes, level = self.proposal(start, widths), start + len(widths) + 1
            fed = _feed(*self._drafter, self._search, nodes.nodes, before.cache, level=level)
            self._known[start, widths] = fed, nodes.rank
        return self._known[start, widths]


@functools.partial(jax.jit, static_argnames=("target",))
def _target_beams(target: StepModel, params, search: Search) -> TargetBeams:
    """Runs plain beam search, and puts its beams into the slots of `search`."""
    trie, config = search.trie, search.config
    how = {"beams": config.beams, "score_norm": config.score_norm}
    found = search_levels(target, params, trie, search.prompt, **how)[0][:-1]
    plain = Layout(search.layout.prompt, (1,) + (config.beams,) * (trie.length - 1))
    shift = jnp.array(search.layout.offset) - jnp.array(plain.offset)
    levels, parents, waits = [], [], []
    for level, beams in enumerate(found, start=1):
        parents.append(jnp.maximum(beams.path[..., level - 1] - plain.offset[level - 1], 0))
        moved = beams.path.at[..., :level].add(shift[:level])
        levels.append(assign_slots(beams.replace(path=moved), level, search.layout))
        waits.append(beams.valid & ~is_finished(trie, level, beams, config.score_norm))
    empty = jnp.zeros((search.batch, 0, config.beams), bool)
    return TargetBeams(tuple(levels), tuple(parents), jnp.stack(waits, 1) if waits else empty)


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


@functools.partial(jax.jit, static_argnames=("start",))
def _draft_scores(
    search: Search, target: TargetBeams, children: tuple[Children, ...], *, start: int
) -> Float[Array, "B M K"]:
    """What the draft makes of the target's beams in a round from level `start`.

    Args:
      children: of the target's beams of levels 0..L-2, as the draft scores them.

    Returns:
      [B, L-1, K] scores of the beams of levels 1..L-1; no meaning up to `start`.
    """
    scores = children[start].parents.score
    levels = [jnp.zeros((search.batch, search.config.beams))] * start
    for level in range(start, search.length - 1):
        parent, found = target.parents[level], target.levels[level]

        def of_parent(values, parent=parent):
            return jnp.take_along_axis(values, parent.reshape(parent.shape + (1,) * (values.ndim - 2)), 1)

        hit = (of_parent(children[level].edge) == found.node[..., None]) & of_parent(children[level].exists)
        log_prob = jnp.where(hit, of_parent(children[level].log_prob), LOWEST).max(-1)
        scores = jnp.maximum(of_parent(scores) + log_prob, LOWEST)
        levels.append(scores)
    return jnp.stack(levels, 1)


@functools.partial(jax.jit, static_argnames=("level",))
def _propose(
    search: Search, target: TargetBeams, scores: Array, children: Children, rank: NodeInt, width: int, *, level: int
) -> Proposal:
    """Selects the best children of the nodes whose rank is below `width`.

    Args:
      scores: see `_draft_scores`.
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
    edge = jnp.where(found, jnp.take_along_axis(children.edge.reshape(batch, -1), index, 1), -1)
    value = jnp.where(found, jnp.take_along_axis(total, index, 1), -jnp.inf)
    # Of equals the shallower node comes first.
    depth = jnp.arange(1, search.length)[:, None]
    ahead = (value[:, None, None] > scores[..., None]) | (
        (value[:, None, None] == scores[..., None]) & (depth > level)[..., None]
    )
    better = (ahead & found[:, None, None]).sum(-1, dtype=jnp.int32)
    own = edge[:, None] == target.levels[level - 1].node[..., None]
    better = better.at[:, level - 1].set(jnp.where(own.any(-1), own.argmax(-1), NEVER))
    # Back into trie order, in which an index among the children sorts.
    nodes = select_children(trie, children, index, found)
    order = jnp.argsort(jnp.where(found, index, total.shape[1]), 1)
    nodes, order = nodes.resize(count), jnp.pad(order, ((0, 0), (0, count - order.shape[1])), constant_values=count)
    nodes = assign_slots(nodes, level, search.layout)
    return Proposal(nodes, jnp.where(nodes.valid, order, count), better)
