"""Times the methods of one cell of suite `decode` side by side, and compares lists."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from atspeed_jax.benchmarks.decode_bench import Bench, OutOfTime, Timed
from atspeed_jax.benchmarks.decode_cells import Cell, Way
from atspeed_jax.benchmarks.decode_equality import equality
from atspeed_jax.benchmarks.decode_floor import floor_seconds
from atspeed_jax.benchmarks.decode_memory import parameters
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.evaluation.breakdown import breakdown, can_break_down
from atspeed_jax.models.widen import COST_NOTE
from atspeed_jax.serving.decode_users import decode_users, prompt_of
from atspeed_jax.serving.decoders import computed_head
from atspeed_jax.serving.settings import DrafterName, Setting
from atspeed_jax.serving.timing import run_once
from atspeed_jax.tuning.decide import Bootstrap, ratio_bounds
from atspeed_jax.tuning.tune import TuneConfig, choose
from atspeed_jax.utils.device_time import traced
from atspeed_jax.utils.program_memory import peak_device_memory


def tuned_setting(bench: Bench, cell: Cell) -> Setting:
    """Has the tuner choose for a cell, on users from the other end of the pair's.

    Its search times parts of the target alone and compiles few settings, so a large
    target takes minutes.
    """
    suite, norm = bench.suite, bench.pair.decode.score_norm
    drafters: tuple[DrafterName, ...] = ("draft",)
    others = max(suite.users, len(bench.pair.tokens) - suite.users)
    batches = bench.pair.batches(cell.prompt, cell.batch, others, others=True)
    config = TuneConfig(
        (cell.beams,), (cell.batch,), drafters, users=suite.users, repeats=suite.repeats, seed=suite.seed
    )
    found = choose(bench.decoders, batches, cell.beams, norm, config, cheaper=bench.trained, say=bench.say)
    bench.say(f"{cell.title}: tuned to {found.setting.label}; {found.row['reason']}")
    return found.setting


def measure_cell(bench: Bench, cell: Cell, ways: Sequence[Way]) -> tuple[list[dict], bool]:
    """Measures one cell.

    Args:
      bench: models and suite.
      cell: what is measured.
      ways: of the cell, plain beam search first.

    Returns:
      (a row per method that was measured, whether all of them were).
    """
    batches = bench.pair.batches(cell.prompt, cell.batch, bench.suite.users)
    timed, whole = [], True
    for way in ways:
        try:
            bench.clock.check(1.5 * bench.clock.compile_s)
            timed.append(_compiled(bench, way, batches))
        except OutOfTime:
            bench.say(f"{cell.title}: out of time, left out: {way.method} {way.mode}")
            whole = False
    whole &= _time(bench, timed, batches)
    timed = [one for one in timed if np.isfinite(one.seconds[0]).all()]
    return [_row(bench, cell, one, timed, batches) for one in timed], whole


def _compiled(bench: Bench, way: Way, batches: Sequence[dict]) -> Timed:
    setting = way.setting
    draws = selection_of(setting.search.mode).draws
    users = np.concatenate([batch["user"] for batch in batches])
    keys = user_keys(bench.suite.seed, users) if draws else None
    decode, ahead = bench.build(way, batches[0])
    first, second = run_once(decode, batches[0], keys), run_once(decode, batches[0], keys)
    bench.clock.compile_s = first
    decoded = decode_users(decode, batches, len(users), keys)
    seconds = np.full((bench.suite.repeats, len(batches)), np.nan)
    return Timed(way, decode, keys, decoded, ahead + max(0.0, first - second), seconds)


def _time(bench: Bench, timed: Sequence[Timed], batches: Sequence[dict]) -> bool:
    """Fills in the seconds, all methods in turn; returns whether time was left for all
    repeats.
    """
    for repeat in range(bench.suite.repeats):
        for number, batch in enumerate(batches):
            for one in timed:
                one.seconds[repeat, number] = run_once(one.decode, batch, one.keys)
        if bench.clock.left <= 0 and repeat + 1 < bench.suite.repeats:
            return False
    return True


def _row(bench: Bench, cell: Cell, one: Timed, timed: Sequence[Timed], batches: Sequence[dict]) -> dict:
    suite, setting, config = bench.suite, one.way.setting, bench.decoders.target
    plain = next(other for other in timed if other.way.setting == setting.baseline and other.way.method == "plain")
    middle = np.nanmedian(one.seconds, 0)
    slots = cell.prompt + 1
    levels = bench.pair.id_tokens.shape[1] - 1
    widths = (1,) * levels
    if setting.method == "speculative":
        resolved = setting.search.resolve(bench.decoders.prefixes[setting.search.score_norm])
        widths = tuple(width for width in resolved.widths if width != "all")  # which resolving has left none of
    counted = computed_head(config, bench.decoders.first_logit(setting.search.score_norm))
    floor, work = floor_seconds(counted, setting, widths, cell.batch, slots, bench.ceilings)
    row = {
        **dataclasses.asdict(cell),
        "K": cell.beams,
        "dtype": suite.dtype,
        "layers": "side by side" if suite.unrolled else "stacked",
        "parameters": parameters(config),
        "mode": one.way.mode,
        "method": one.way.method,
        "settings": "generate" if one.way.method == "hf" else setting.label,
        "widths": list(setting.search.widths),
        "budget": setting.search.budget,
        "users": len(batches) * cell.batch,
        "ms": 1e3 * float(np.median(middle)),
        "ms_p95": 1e3 * float(np.nanpercentile(one.seconds, 95)),
        "target_calls_mean": float(one.decoded.calls.mean()),
        "floor_ms": 1e3 * floor,
        "floor_ratio": float(np.median(middle) / floor),
        "floor_gflop": work.flops / 1e9,
        "floor_gb": work.moved / 1e9,
        "compile_s": round(one.compile_s, 2),
        "peak_memory_gib": peak_device_memory() / 2**30,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "note": COST_NOTE,
    }
    del row["beams"]
    row |= equality(bench, one, plain, batches)
    ratio = low = high = None
    if row["equal"] is not False:
        alone = np.nanmedian(plain.seconds, 0)
        low, high = ratio_bounds(alone, middle, Bootstrap(suite.samples, suite.seed))
        ratio = float(np.median(alone / middle))
    row |= {"ratio_to_plain": ratio, "ratio_low": low, "ratio_high": high} | _parts(bench, one, batches)
    return row | {"device_time": _device_time(bench, one, batches[0])}


def _device_time(bench: Bench, one: Timed, batch: dict) -> dict | None:
    """Where the device's time goes when a batch is decoded; None if nobody asked, or
    the trace names no kernel.
    """
    if not bench.suite.trace or one.way.method == "hf":
        return None
    found = traced(functools.partial(one.decode, prompt_of(batch, one.keys)))
    return found and dataclasses.asdict(found)


def _parts(bench: Bench, one: Timed, batches: Sequence[dict]) -> dict[str, float | None]:
    """Where the time of strict mode goes, in ms: target calls and draft calls, each
    timed alone; and the rest, which is top-K, trie, selection and gaps.
    """
    names = ("target_part_ms", "draft_part_ms", "rest_part_ms")
    ours = one.way.mode == "strict" and one.way.method not in ("hf", "whole_prompt")
    wanted = bench.suite.parts and ours and can_break_down(bench.decoders)
    if not wanted or bench.clock.left < 3 * bench.clock.compile_s:
        return dict.fromkeys(names)
    found = breakdown(bench.decoders, one.way.setting, batches[:3], repeats=bench.suite.repeats)
    return dict(zip(names, (found["target"], found["draft"], found["rest"]), strict=True))
