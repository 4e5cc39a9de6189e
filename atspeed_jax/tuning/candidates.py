"""Thousands of settings of a search, and the few that are expected to be fastest."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import Prompt, ScoreNorm
from atspeed_jax.decoding.budget import read_nodes
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.row_compaction import rows_at_a_time
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders, SpeculativeSearch
from atspeed_jax.serving.settings import DrafterName, Setting
from atspeed_jax.tuning.acceptance import Acceptance
from atspeed_jax.tuning.round_times import RoundTimes, later_passes, measure, search_seconds

MOST = 1200  # combinations of widths, about; long ids get fewer widths per level
BUDGETS = (0.35, 0.5, 0.65, 0.8)  # shares of the drafted nodes that a target call may read
POINTS = 16  # numbers of nodes that calls are told for
SIZES = 3  # widths that the parts of a search are timed with
ASKED = 1 << 26  # most scores that a drafter gives at once
NEAR, ALIKE = 1.25, 0.1  # a setting this much slower than the best is not looked at; nodes of settings called alike


class Expected(NamedTuple):
    """A setting, the seconds that it is expected to take for a batch, and its calls."""

    setting: Setting
    seconds: float
    target_calls: float


def widest(beams: int, score_norm: ScoreNorm, prefixes: Sequence[int]) -> SearchConfig:
    """The widest tree that is looked at.

    Args:
      beams: K.
      score_norm: of the search.
      prefixes: of depth 1..L (`prefixes_by_norm`).
    """
    most = 6 * beams + 32
    # Level 1 is often small enough to be drafted whole, which never misses.
    widths = [have if level == 0 and have <= max(128, most) else min(have, most) for level, have in enumerate(prefixes)]
    gamma = max(1, len(prefixes) - 1)
    return SearchConfig(tuple(max(1, width) for width in widths[:-1]), gamma, score_norm, beams=beams)


def level_widths(beams: int, most: int, count: int) -> list[int]:
    """Up to `count` widths of a level between the K beams and `most`, evenly spaced on
    a log scale.
    """
    least = min(beams, most)
    return sorted({round(width) for width in np.geomspace(least, most, count)})


def searches(wide: SearchConfig) -> Iterator[SearchConfig]:
    """Lists widths, gamma and budget.

    Args:
      wide: the widest tree.
    """
    most_wide = wide.resolved_widths(len(wide.widths) + 1)
    levels = len(most_wide)
    count = max(2, min(24, int(MOST ** (1 / max(1, levels)))))
    grid = [level_widths(wide.beams, most, count) for most in most_wide]
    for widths, gamma in itertools.product(itertools.product(*grid), range(1, max(1, levels) + 1)):
        search = dataclasses.replace(wide, widths=widths, gamma=gamma)
        yield search
        nodes = read_nodes(search)[0]
        budgets = {max(wide.beams, round(share * nodes)) for share in BUDGETS}
        for budget in sorted(budget for budget in budgets if budget < nodes):
            yield dataclasses.replace(search, budget=budget)


def measured(
    decoders: Decoders, batches: Sequence[dict], wide: Sequence[SearchConfig], drafters: Sequence[DrafterName]
) -> dict[DrafterName, RoundTimes]:
    """Times the parts of a search on this device, per drafter.

    Args:
      decoders: the models and the catalog.
      batches: see `shortlist`; the first of the most frequent shape is read.
      wide: the widest tree of each K (`widest`), of one norm.
      drafters: who may draft.
    """
    shapes = [batch["tokens"].shape for batch in batches]
    prompt = prompt_of(batches[shapes.index(max(set(shapes), key=shapes.count))])
    least = min(wide, key=lambda search: search.beams)
    most = max(max((1, *search.resolved_widths(decoders.trie.length))) for search in wide)
    sizes = level_widths(least.beams, most, SIZES)
    return {name: measure(decoders, name, least, prompt, sizes) for name in drafters}


def shortlist(
    decoders: Decoders,
    batches: Sequence[dict],
    wide: SearchConfig,
    times: Mapping[DrafterName, RoundTimes],
    count: int,
) -> tuple[list[Expected], int, list[dict]]:
    """Searches for the settings that are expected to be fastest; compiles none of them.

    Args:
      decoders: the models and the catalog.
      batches: prompts (`data.batches.prompt_batches`) of one batch size.
      wide: K, norm and the widest tree (`widest`).
      times: seconds of the parts of a search, per drafter.
      count: settings wanted.

    Returns:
      (settings, how many were compared, `calls_by_nodes`).
    """
    acceptance: dict[DrafterName, Acceptance] = {name: _acceptance(decoders, name, wide, batches) for name in times}
    found, compared = fastest(acceptance, times, wide, len(batches[0]["row"]), count)
    return found, compared, calls_by_nodes(acceptance, wide)


def calls_by_nodes(acceptance: Mapping[DrafterName, Acceptance], wide: SearchConfig) -> list[dict]:
    """Lists mean target calls against the drafted nodes that a call reads (budgets).

    Args:
      acceptance: per drafter.
      wide: the tree that the nodes are chosen from.

    Returns:
      Per drafter {"drafter", "nodes": increasing from K to the whole tree,
      "target_calls": one per number of nodes}; empty for ids of one code.
    """
    every = read_nodes(wide)[0]
    if not every:
        return []
    nodes = level_widths(wide.beams, every, POINTS)
    return [
        {"drafter": name, "nodes": nodes, "target_calls": users.calls_by_budget(wide, nodes).mean(1).tolist()}
        for name, users in acceptance.items()
    ]


def _acceptance(decoders: Decoders, name: DrafterName, wide: SearchConfig, batches: Sequence[dict]) -> Acceptance:
    decode, (target_params, draft_params) = decoders.program(Setting(name, wide))
    assert isinstance(decode, SpeculativeSearch), "a setting that speculates"
    largest = max(wide.resolved_widths(decoders.trie.length), default=1)
    rows = ASKED // (largest * max(decoders.target.vocab_size, *decoders.trie.row_width))
    target, drafter = (decode.step, target_params), (decode.drafter, draft_params)
    return Acceptance(target, drafter, decoders.trie, joined(batches, max(1, rows)), wide)


def joined(batches: Sequence[dict], rows: int) -> list[Prompt]:
    """Puts the rows of batches together, `rows` at a time and padded to one length."""
    longest = max(batch["tokens"].shape[1] for batch in batches)

    def together(name: str) -> np.ndarray:
        return np.concatenate([np.pad(b[name], ((0, 0), (longest - b[name].shape[1], 0))) for b in batches])

    tokens, valid = together("tokens"), together("valid")
    parts = range(0, len(tokens), rows)
    return [Prompt(jnp.asarray(tokens[n : n + rows]), jnp.asarray(valid[n : n + rows])) for n in parts]


def fastest(
    acceptance: Mapping[DrafterName, Acceptance],
    times: Mapping[DrafterName, RoundTimes],
    wide: SearchConfig,
    batch: int,
    count: int,
) -> tuple[list[Expected], int]:
    """Searches for the settings that are expected to be fastest.

    A setting is looked at in the order of its first round, which it can never undercut.
    So the search ends once that alone is slower than what was found.

    Args:
      acceptance: per drafter, of users whose number is a multiple of `batch`.
      times: per drafter.
      wide: the widest tree (`widest`).
      batch: users decoded at once.
      count: settings wanted.

    Returns:
      (at most `count` settings, the fastest first (`finalists`); how many settings were
      compared).
    """
    every = list(searches(wide))
    bounds: list[tuple[float, DrafterName, int]] = sorted(
        (float(search_seconds(times[name], search, np.array(0))), name, number)
        for name in acceptance
        for number, search in enumerate(every)
    )
    found: list[Expected] = []
    best = np.inf
    for bound, name, number in bounds:
        if bound > NEAR * best:
            break
        search = every[number]
        calls = acceptance[name].calls(search)
        passes = later_passes(calls.reshape(-1, batch), rows_at_a_time(batch, search.row_share))
        seconds = float(search_seconds(times[name], search, passes).mean())
        best = min(best, seconds)
        found.append(Expected(Setting(name, search), seconds, float(calls.mean())))
    return finalists(sorted(found, key=lambda one: one.seconds), count), len(bounds)


def finalists(ranked: Sequence[Expected], count: int) -> list[Expected]:
    """Settings that are worth to be compiled and timed.

    Seconds are expected from parts that were timed one by one, so a call of the target
    may cost more than it is thought to. So every second finalist is the fastest of those
    that need at most half as many later calls as the finalist of fewest calls. The
    others are the next fastest.

    Args:
      ranked: the fastest first.
      count: finalists wanted.

    Returns:
      At most `count`, in the order of `ranked`. No two are alike: settings are alike if
      drafter and gamma are the same and a target call reads nearly as many nodes, since
      such settings take nearly the same time.
    """
    kept: list[Expected] = []
    while len(kept) < count:
        unlike = [one for one in ranked if not any(_alike(one.setting, other.setting) for other in kept)]
        if not unlike:
            break
        later = min((one.target_calls - 1 for one in kept), default=0.0)
        fewer = [one for one in unlike if one.target_calls - 1 <= later / 2] if len(kept) % 2 else []
        kept.append((fewer or unlike)[0])
    return sorted(kept, key=ranked.index)


def _alike(one: Setting, other: Setting) -> bool:
    if (one.drafter, one.search.gamma) != (other.drafter, other.search.gamma):
        return False
    pairs = zip(read_nodes(one.search), read_nodes(other.search), strict=True)
    return all(abs(a - b) <= ALIKE * max(a, b) for a, b in pairs)
