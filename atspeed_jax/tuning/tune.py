"""Self-tuning: which way to decode is fastest on this hardware, per K and batch size.

A search compares thousands of settings by what they are expected to cost: target calls
from `acceptance`, seconds of a round from `round_times`. The few best are compiled, and
timed beside plain beam search on batches of validation users, so what decides is the
time of whole lists. Test users are never read.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from atspeed_jax.decoding.base import DecodeError, ScoreNorm
from atspeed_jax.decoding.config import Widths, resolve_widths
from atspeed_jax.serving import timing
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig, DrafterName, Setting
from atspeed_jax.tuning.candidates import level_widths, measured, shortlist, widest
from atspeed_jax.tuning.decide import Bootstrap, confirmed_choice, ratio_bounds, reason
from atspeed_jax.tuning.round_times import RoundTimes, plain_seconds
from atspeed_jax.utils.program_memory import forget_programs
from atspeed_jax.utils.ranges import (
    BatchSize,
    Beams,
    Range,
    Repeats,
    Seed,
    Users,
    check_each_once,
    check_ranges,
)


class TuneError(ValueError):
    """Settings that cannot be tuned, or a table that lacks what is asked for."""


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """What is tuned, and on how many users.

    Attributes:
      beams: K, each tuned by itself.
      batch_sizes: each tuned by itself.
      drafters: who may draft.
      finalists: settings that are compiled and timed beside plain beam search.
      check: widths that are compiled and timed as well, with every drafter.
      grid: widths per level of an exhaustive grid that is compiled and timed as well,
        with every drafter; 0 for none.
      batches, users: least number of batches, and of validation users, that are timed
        per batch size.
      counted: least number of validation users on whom target calls are counted. A
        search compares thousands of settings, so what is best on few users owes much to
        these users.
      repeats: timings of a batch, of which the median counts.
      bootstrap: of the intervals.
      seed: of the users.
    """

    beams: tuple[Beams, ...] = (20, 5, 1)
    batch_sizes: tuple[BatchSize, ...] = (1,)
    drafters: tuple[DrafterName, ...] = ("draft", "popularity")
    finalists: Annotated[int, Range(1, 100)] = 4
    check: tuple[Widths, ...] = ()
    grid: Annotated[int, Range(0, 10)] = 0
    batches: Annotated[int, Range(1, 1_000_000)] = 5
    users: Users = 100
    counted: Users = 200
    repeats: Repeats = 3
    bootstrap: Bootstrap = dataclasses.field(default_factory=Bootstrap)
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self)
        check_each_once(self, "beams", "batch_sizes", "drafters")
        check_each_once(self, "check", least=0)
        if stray := set(self.drafters) - {"draft", "popularity"}:
            raise TuneError(f"drafter {min(stray)!r}: expected 'draft' or 'popularity'; beam search is always measured")

    def timed(self, batches: Sequence[dict]) -> Sequence[dict]:
        """The batches, all of one size, that decoders are timed with.

        They lie at equal distances among all, which are in order of the prompts' lengths.

        Returns:
          Batches whose rows are numbered 0..n-1 anew.
        """
        count = min(len(batches), max(self.batches, -(-self.users // len(batches[0]["row"]))))
        chosen = [batches[number * len(batches) // count] for number in range(count)]
        rows = np.sort(np.concatenate([batch["row"] for batch in chosen]))
        rows = rows[rows >= 0]
        return [
            batch | {"row": np.where(batch["row"] >= 0, np.searchsorted(rows, batch["row"]), -1)} for batch in chosen
        ]


class Tuned(NamedTuple):
    """The choice for one K and batch size.

    Attributes:
      setting: the fastest that is surely not slower than plain beam search.
      row: {"K", "batch", "choice": label, "reason": text, "searched": settings compared,
        "calls_by_nodes": see `candidates.calls_by_nodes`, "slower_than_best",
        "seconds": that it took, "settings": [{"label", "setting",
        "target_calls", "one_call_share", "expected_ms", "time_ms", "ratio",
        "ratio_low", "ratio_high"}]}. time_ms is the mean over batches of the median
        time of a batch. ratio is plain beam search's time divided by that, the median
        over batches, with its 95 % interval. slower_than_best: see `confirmed_choice`.
        With settings to check ("check", "grid") also {"checked": {"settings": how many,
        "fastest": label, "slower": the choice's mean time divided by that of the
        fastest, less 1}}; none of them is chosen, and their expected_ms is None.
    """

    setting: Setting
    row: dict


def choose(
    decoders: Decoders,
    batches: Sequence[dict],
    beams: int,
    score_norm: ScoreNorm,
    config: TuneConfig,
    *,
    times: Mapping[DrafterName, RoundTimes] | None = None,
    cheaper: Decoders | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Chooses how to decode with one K and batch size.

    Args:
      decoders: the models and the catalog.
      batches: prompts (`data.batches.prompt_batches`) of one batch size; not of users
        that the choice is judged by later. Target calls are counted on all of them;
        the first ones are timed.
      beams: K.
      score_norm: of the search.
      config: drafters, finalists, check, repeats and the bootstrap.
      times: seconds of the parts of a search per drafter; None to measure.
      cheaper: decoders of the same lists at less cost, with which target calls are
        counted.
      say: gets lines about what is done.
    """
    begin = time.perf_counter()
    forget_programs()
    wide, timed = widest(beams, score_norm, decoders.prefixes[score_norm]), config.timed(batches)
    if times is None:
        times = measured(decoders, timed, [wide], config.drafters)
    expected, searched, curve = shortlist(cheaper or decoders, batches, wide, times, config.finalists)
    plain = plain_seconds(next(iter(times.values())), beams, decoders.trie.length)
    say(f"K={beams}, batch {len(batches[0]['row'])}: {searched} settings compared, expected are")
    for one in expected:
        say(f"  {one.setting.label}: {one.target_calls:.3f} calls, {1e3 * one.seconds:.2f} ms")
    alone = Setting.beam_search(beams, score_norm)
    settings = {alone: plain} | {one.setting: one.seconds for one in expected}
    extra = [setting for setting in checked(decoders, beams, score_norm, config, say) if setting not in settings]
    row: dict[str, Any] = {"K": beams, "batch": len(batches[0]["row"]), "searched": searched, "calls_by_nodes": curve}
    row |= _measure(decoders, settings, extra, timed, config) | {"seconds": time.perf_counter() - begin}
    if extra:
        how = "{settings} checked settings, {fastest}, {slower:+.1%}".format(**row["checked"])
        say(f"the time of the choice beside that of the fastest of {how}")
    return Tuned(next(setting for setting in settings if setting.label == row["choice"]), row)


def checked(
    decoders: Decoders, beams: int, score_norm: ScoreNorm, config: TuneConfig, say: Callable[[str], None]
) -> list[Setting]:
    """The settings to check that can hold K, with int widths; `say` gets the others."""
    prefixes = decoders.prefixes[score_norm]
    wide = widest(beams, score_norm, prefixes).resolved_widths(len(prefixes))
    levels = [level_widths(beams, most, config.grid) for most in wide]
    grid = itertools.product(*levels) if config.grid else ()
    settings: dict[Setting, None] = {}
    remedy = f"raise it in --widths, or leave {beams} out of --beams"
    for drafter, widths in itertools.product(config.drafters, (*config.check, *grid)):
        try:
            tree = DecodeConfig(
                resolve_widths(widths, prefixes, beams, remedy=remedy), max(1, len(prefixes) - 1), score_norm
            )
        except DecodeError as error:
            say(f"left out: {error}")
        else:
            settings[Setting.strict(drafter, beams, tree)] = None
    return list(settings)


def _measure(
    decoders: Decoders,
    settings: Mapping[Setting, float],
    extra: Sequence[Setting],
    batches: Sequence[dict],
    config: TuneConfig,
) -> dict:
    """The choice, and the rows of all settings.

    Args:
      decoders: build each setting.
      settings: expected seconds of each, plain beam search first.
      extra: settings that are timed but not chosen.
      batches: what is decoded.
      config: repeats and the bootstrap.
    """
    forget_programs()
    users = sum(int((batch["row"] >= 0).sum()) for batch in batches)
    every = {setting.label: setting for setting in (*settings, *extra)}
    built = {label: decoders.build(setting) for label, setting in every.items()}

    def timed(labels: Iterable[str], repeats: int) -> dict[str, np.ndarray]:
        return timing.latencies({label: built[label] for label in labels}, batches, repeats=repeats)

    times, again = timed(built, config.repeats), 3 * config.repeats  # which compiles them, several at once
    first = {label: decode_users(decode, batches, users) for label, decode in built.items()}
    eligible = {setting.label: times[setting.label] for setting in settings}
    alone = next(iter(eligible))
    last, choice, slower = confirmed_choice(eligible, alone, config.bootstrap, lambda labels: timed(labels, again))
    rows = []
    for label, setting in every.items():
        together = last if label in last else times  # a ratio is of times measured side by side
        low, high = ratio_bounds(together[alone], together[label], config.bootstrap)
        rows.append({
            "label": label,
            "setting": setting.row,
            "target_calls": float(first[label].calls.mean()),
            "one_call_share": float((first[label].calls == 1).mean()),
            "expected_ms": 1e3 * settings[setting] if setting in settings else None,
            "time_ms": float(together[label].mean()),
            "ratio": float(np.median(together[alone] / together[label])),
            "ratio_low": low,
            "ratio_high": high,
        })  # fmt: skip
    why = reason(rows[: len(settings)], choice)
    found = {"choice": choice, "reason": why, "slower_than_best": slower, "settings": rows}
    if extra:
        quick = sorted((setting.label for setting in extra), key=lambda label: times[label].mean())[:5]
        mean = {label: own.mean() for label, own in timed([choice, *quick], again).items()}
        fastest_extra = min(quick, key=lambda label: mean[label])
        slower = float(mean[choice] / mean[fastest_extra] - 1)
        found |= {"checked": {"settings": len(extra), "fastest": fastest_extra, "slower": slower}}
    return found
