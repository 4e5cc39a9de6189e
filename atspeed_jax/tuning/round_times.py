"""How long the parts of a search take, by the nodes that a call reads.

`measure` times target and draft on this device at a few sizes. For a device that is not
here, `RoundTimes` can be filled with predictions instead. `search_seconds` adds the
parts of a setting up.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import Prompt, StepModel, first_token
from atspeed_jax.decoding.beams import Frontier, root_beams
from atspeed_jax.decoding.budget import level_slots, read_nodes, within_budget
from atspeed_jax.decoding.children import Children, best_children
from atspeed_jax.decoding.config import SearchConfig, raised_widths
from atspeed_jax.decoding.draft import Drafter, DraftTree, draft_tree
from atspeed_jax.decoding.row_compaction import rows_at_a_time
from atspeed_jax.decoding.search import Search
from atspeed_jax.decoding.shared_head import begin_cache
from atspeed_jax.decoding.verify import accept, verify_tree
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.serving.decoders import Decoders, SpeculativeSearch
from atspeed_jax.serving.settings import DrafterName, Setting
from atspeed_jax.serving.timing import compile_together, fastest

TIMED = 0.15  # seconds that a part is timed for, at least five times


@dataclasses.dataclass(frozen=True)
class Curve:
    """Seconds of a call by the nodes that it reads, linear between the sizes given.

    Attributes:
      nodes: increasing sizes.
      seconds: of a call at each size.
    """

    nodes: tuple[float, ...]
    seconds: tuple[float, ...]

    def __call__(self, nodes: float) -> float:
        """Seconds at any size; outside the sizes given the nearest slope goes on."""
        x, y = self.nodes, self.seconds
        if len(x) == 1:
            return y[0]
        right = min(max(bisect.bisect(x, nodes), 1), len(x) - 1)
        slope = max(0.0, (y[right] - y[right - 1]) / (x[right] - x[right - 1]))
        return max(0.0, y[right - 1] + slope * (nodes - x[right - 1]))


@dataclasses.dataclass(frozen=True)
class RoundTimes:
    """Seconds of the parts of a search, for one pair, batch size and device.

    A later round reads `rows_at_a_time` rows, all other parts the whole batch.

    Attributes:
      target_first: by the nodes of a row that the call of round 1 reads behind the
        prompt. Verification is included.
      target_later: by the nodes of a row that a call of a later round reads.
      target_level: by K, a call of plain beam search behind the prompt.
      draft_prompt: the draft's reading of the prompt, and the choice of level 1.
      draft_level: by the nodes of one level, the draft's reading of them, and the
        choice of the next level.
      draft_later: the same in a later round.
    """

    target_first: Curve
    target_later: Curve
    target_level: Curve
    draft_prompt: float
    draft_level: Curve
    draft_later: Curve


def plain_seconds(times: RoundTimes, beams: int, length: int) -> float:
    """Expected seconds of plain beam search for a batch.

    Args:
      times: of the target.
      beams: K.
      length: L, codes of an id.
    """
    return times.target_first(0) + (length - 1) * times.target_level(beams)


def search_seconds(times: RoundTimes, search: SearchConfig, passes: np.ndarray) -> np.ndarray:
    """Expected seconds of a speculative search for a batch.

    Args:
      times: of target and draft.
      search: resolved.
      passes: any shape, later rounds that are run (`later_passes`), or their mean.
    """
    length, slots, (first, later) = len(search.widths) + 1, level_slots(search), read_nodes(search)
    fed = slots[: min(search.gamma, length - 2)]
    once = times.target_first(first) + times.draft_prompt + sum(map(times.draft_level, fed))
    fed = [search.beams, *slots[1 : length - 2]] if length > 2 else []
    again = times.target_later(later) + sum(map(times.draft_later, fed))
    return once + again * passes


def later_passes(calls: np.ndarray, size: int) -> np.ndarray:
    """How many later rounds a batch runs, given what its rows need.

    Args:
      calls: [..., B] target calls of each row.
      size: rows that a later round reads (`rows_at_a_time`).

    Returns:
      [...] rounds; the slowest row rules a batch that is read whole.
    """
    left = calls - 1
    passes = np.zeros(calls.shape[:-1], int)
    while (left > 0).any():
        unfinished = left > 0
        passes += unfinished.any(-1)
        left = left - (unfinished & (np.cumsum(unfinished, -1) <= size))
    return passes


def measure(
    decoders: Decoders, drafter: DrafterName, search: SearchConfig, prompt: Prompt, sizes: Sequence[int]
) -> RoundTimes:
    """Times the parts of a search on this device.

    Args:
      decoders: the models and the catalog.
      drafter: who drafts.
      search: K, norm and row share; every level is timed as wide as each of `sizes`, at
        least as wide as K.
      prompt: a batch.
      sizes: increasing widths, at least two.
    """
    prompt = decoders.headed(prompt, drafter)
    batch, length = len(prompt.tokens), decoders.trie.length
    rows = rows_at_a_time(batch, search.row_share)
    first, level, again = dict[float, float](), dict[float, float](), (0, 0.0)
    plain = decoders.build(Setting.beam_search(search.beams, search.score_norm))
    every = [_Parts.of(decoders, _as_wide_as(size, decoders, drafter, search)) for size in sizes]
    some = prompt.take_rows(jnp.arange(rows))
    compile_together([functools.partial(plain, prompt), *_programs(every, prompt, some, decoders.trie)])
    for parts in every:
        once, later = read_nodes(parts.search)
        begun = parts.begin(prompt, decoders.trie)
        if not level:
            draft_prompt = parts.seconds(begun, range(2))
            if length > 1:
                again = later, parts.round(parts.settle(some, decoders.trie), range(1, length))[1]
        drafted, first[once] = parts.round(begun, range(length))
        fed = level_slots(parts.search)[: length - 2]
        level[float(np.mean(fed or [1]))] = max(0.0, drafted - draft_prompt) / max(1, len(fed))
    target, drafts = _curve(first), _curve(level)
    # A further node costs a row the same in a later round, which reads fewer rows.
    behind = {
        nodes: max(0.0, again[1] + (target(nodes) - target(again[0])) * rows / batch) for nodes in (again[0], *first)
    }
    each = max(0.0, _timed(lambda: plain(prompt)) - target(0)) / max(1, length - 1)
    return RoundTimes(
        target_first=target,
        target_later=_curve(behind),
        target_level=Curve((search.beams,), (each,)),
        draft_prompt=draft_prompt,
        draft_level=drafts,
        draft_later=Curve(drafts.nodes, tuple(seconds * rows / batch for seconds in drafts.seconds)),
    )


def _programs(every: Sequence[_Parts], prompt: Prompt, some: Prompt, trie: ItemTrie) -> list[Callable[[], Any]]:
    """What `measure` times, to be called once: of every setting, the narrowest first,
    on a batch (prompt) and on its rows that a later round reads (some).
    """
    least, length = every[0], trie.length
    runs: list[Callable[[], Any]] = [lambda: least.draft(least.begin(prompt, trie), range(2))]
    runs += [lambda parts=parts: parts.once(parts.begin(prompt, trie), range(length)) for parts in every]
    if length > 1:
        runs.append(lambda: least.once(least.settle(some, trie), range(1, length)))
    return runs


def _as_wide_as(size: int, decoders: Decoders, drafter: DrafterName, search: SearchConfig) -> Setting:
    """The setting whose every level has this width, or what K needs."""
    length = decoders.trie.length
    wide = dataclasses.replace(search, widths=(size,) * (length - 1), gamma=max(1, length - 1), budget=None)
    widths = raised_widths(wide.widths, decoders.prefixes[search.score_norm], search.beams)
    return Setting(drafter, dataclasses.replace(wide, widths=widths))


def _curve(seconds: dict[float, float]) -> Curve:
    return Curve(*zip(*sorted(seconds.items()), strict=True)) if seconds else Curve((0,), (0.0,))


def _timed(run: Callable[[], Any]) -> float:
    return fastest(run, repeats=5, seconds=TIMED)


class _Begun(NamedTuple):
    """A batch before a round."""

    search: Search
    frontier: Frontier
    target_cache: Any
    draft_cache: Any


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Drafting and verification of one setting, each a program.

    Attributes:
      search: resolved.
      target, drafter: the models.
      params: of the target, of the drafter.
    """

    search: SearchConfig
    target: StepModel
    drafter: Drafter
    params: tuple[Any, Any]

    @classmethod
    def of(cls, decoders: Decoders, setting: Setting) -> _Parts:
        decode, params = decoders.program(setting)
        assert isinstance(decode, SpeculativeSearch), "a setting that speculates"
        return cls(decode.search, decode.step, decode.drafter, params)

    def begin(self, prompt: Prompt, trie: ItemTrie) -> _Begun:
        """A batch before round 1."""
        search = Search.of(trie, prompt, self.search)
        head = (None, None) if prompt.head is None else (prompt.head.target, prompt.head.draft)
        models = zip((self.target, self.drafter), head, strict=True)
        caches = (begin_cache(one.init_cache, search.batch, search.layout.slots, read) for one, read in models)
        nobody = jnp.zeros((search.batch,), jnp.int32)
        return _Begun(search, Frontier(root_beams(prompt, trie.length), nobody), *caches)

    def settle(self, prompt: Prompt, trie: ItemTrie) -> _Begun:
        """A batch whose level 1 is settled: K prefixes of one code."""
        begun = self.begin(prompt, trie)
        edge, exists = trie.edges(0, begun.frontier.beams.node)
        token = jnp.where(exists, trie.child_token(0, edge), 0)
        children = Children(begun.frontier.beams, edge, token, jnp.zeros(edge.shape), exists, level=0)
        beams = best_children(trie, children, self.search.beams)
        return begun._replace(frontier=Frontier(beams, jnp.ones_like(begun.frontier.level)))

    def draft(self, begun: _Begun, levels: range):
        """The drafted tree, and the draft's cache."""
        return _draft(self.drafter, self.params[1], begun, levels=levels)

    def verify(self, begun: _Begun, tree: DraftTree):
        """What the target accepts of a tree, and its cache."""
        return _verify(self.target, self.params[0], begun, tree)

    def once(self, begun: _Begun, levels: range):
        """Drafts and verifies."""
        return self.verify(begun, self.draft(begun, levels)[0])

    def round(self, begun: _Begun, levels: range) -> tuple[float, float]:
        """Seconds of drafting, and of verification, in one round."""
        tree = self.draft(begun, levels)[0]
        return self.seconds(begun, levels), _timed(lambda: self.verify(begun, tree)) - _idle(self.params[0])

    def seconds(self, begun: _Begun, levels: range) -> float:
        """Seconds of drafting."""
        return _timed(lambda: self.draft(begun, levels)) - _idle(self.params[1])


@functools.partial(jax.jit, static_argnames=("drafter", "levels"))
def _draft(drafter: Drafter, params, begun: _Begun, *, levels: range):
    search, frontier = begun.search, begun.frontier
    return draft_tree(drafter, params, search, frontier, begun.draft_cache, levels=levels)


@functools.partial(jax.jit, static_argnames=("target",))
def _verify(target: StepModel, params, begun: _Begun, tree: DraftTree):
    search, frontier = begun.search, begun.frontier
    tree = tree.replace(nodes=within_budget(tree.nodes, frontier.level, search.layout, search.config))
    how = {"row_level": frontier.level, "cache": begun.target_cache}
    logits, cache = verify_tree(target, params, search, tree.nodes, **how)
    first = first_token(target, search.config.score_norm)
    return accept(search, tree, logits, frontier, first_token=first), cache


def _idle(params) -> float:
    """Seconds of starting a program that is given these parameters."""
    return _timed(lambda: _nothing(params))


@jax.jit
def _nothing(params):
    return jax.tree.leaves(params)[0].ravel()[0]
