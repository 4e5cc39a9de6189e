"""Our decoders beside Hugging Face `generate`, with the same weights, users and K."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np

from atspeed_jax.benchmarks.hugging_face import HuggingFace, SharedModel, same_lists, shared_model
from atspeed_jax.benchmarks.random_models import CODES, ITEMS, random_decoders, random_prompts
from atspeed_jax.decoding.config import Widths
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.timing import run_once
from atspeed_jax.utils.ranges import BatchSize, Beams, PromptTokens, Range, Seed, check_ranges


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """The cells of the benchmark: every model with every batch, K and prompt.

    Attributes:
      models: names of `random_models.SIZES`.
      batches: users at once.
      beams: K.
      prompts: tokens per prompt.
      widths: of speculative search.
      repeats: timed rounds of a cell.
      seconds: a cell whose rounds take longer stops after three of them.
      seed: of models, catalog and users.
    """

    models: tuple[str, ...]
    batches: tuple[BatchSize, ...]
    beams: tuple[Beams, ...]
    prompts: tuple[PromptTokens, ...]
    widths: Widths
    repeats: Annotated[int, Range(3, 10_000)]
    seconds: Annotated[float, Range(0, 1e6)]
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self)


def measure_generate(config: GenerateConfig, say: Callable[[str], None]) -> list[dict]:
    """Measures every cell, and returns the rows of all.

    110M is measured with one user at a time only.

    Args:
      config: the cells.
      say: called with a line per cell.
    """
    catalog, rows = Catalog.random(ITEMS, CODES, config.seed), []
    decode = DecodeConfig(config.widths, len(CODES) - 1, "vocab")
    for name in config.models:
        decoders = random_decoders(name, catalog, config.seed)
        with shared_model(name, decoders, catalog, decode) as model:
            for batch in config.batches if name != "110M" else (1,):
                for tokens in config.prompts:
                    users = random_prompts(catalog, batch, tokens, config.seed)
                    rows += [row for beams in config.beams for row in measure_cell(model, users, beams, config, say)]
    return rows


def measure_cell(
    model: SharedModel,
    batch: Mapping[str, np.ndarray],
    beams: int,
    config: GenerateConfig,
    say: Callable[[str], None],
) -> list[dict]:
    """Times every method on one batch, interleaved.

    Returns:
      A row per method. ratio_to_hf: median time of `generate` without constraint by the
      method's. work_ratio: token forwards of `generate`, which reads the prompt K
      times, by those of a shared prompt, K(P+L-1) / (P+(L-1)K). equal: whether all
      lists are those of our beam search (`same_lists`), None without constraint, which
      may name no item. "_unrolled" in the method's name: with layers side by side
      (`decode.unroll`).
    """
    settings = {
        "beam_search": Setting.beam_search(beams, "vocab"),
        "speculative": Setting.strict("draft", beams, model.decode),
    }
    ours = {name: model.decoders.build(setting) for name, setting in settings.items()}
    ours |= {f"{name}_unrolled": model.unrolled.build(setting) for name, setting in settings.items()}
    runs: dict[str, Callable[[], float]] = {
        "hf_generate": functools.partial(_timed, model.hugging_face, batch, beams, trie=False),
        "hf_generate_trie": functools.partial(_timed, model.hugging_face, batch, beams, trie=True),
        **{name: functools.partial(run_once, decode, batch) for name, decode in ours.items()},
    }
    for run in runs.values():
        run()  # compiles, and warms up
    times = interleaved(runs, config.repeats, config.seconds)
    results = {name: decode(prompt_of(batch)) for name, decode in ours.items()}
    equal = {
        "hf_generate": None,
        "hf_generate_trie": same_lists(model, batch, beams, results["beam_search"]),
        **{name: not differing(result, results["beam_search"]).any() for name, result in results.items()},
    }
    length, width = model.hugging_face.length, batch["tokens"].shape[1]
    middle = {name: float(np.median(values)) for name, values in times.items()}
    rows = [
        {
            "model": model.name,
            "params_m": round(model.params_m, 2),
            "batch": len(batch["tokens"]),
            "K": beams,
            "prompt": width,
            "method": name,
            "ms_p50": 1e3 * middle[name],
            "ms_p95": 1e3 * float(np.percentile(times[name], 95)),
            "rounds": len(times[name]),
            "ratio_to_hf": middle["hf_generate"] / middle[name],
            "work_ratio": beams * (width + length - 1) / (width + (length - 1) * beams),
            "equal": equal[name],
            "target_calls": float(results[name].target_calls.mean()) if name in results else float(length),
        }
        for name in runs
    ]
    say(f"{model.name}, batch {len(batch['tokens'])}, K={beams}, prompt {width}: " + _ratios(rows))
    return rows


def _ratios(rows: Sequence[Mapping]) -> str:
    return ", ".join(f"{row['method']} {row['ms_p50']:.1f} ms ({row['ratio_to_hf']:.2f}x)" for row in rows)


def _timed(generate: HuggingFace, batch: Mapping, beams: int, *, trie: bool) -> float:
    start = time.perf_counter()
    generate(batch, beams, trie=trie)
    return time.perf_counter() - start


def interleaved(runs: Mapping[str, Callable[[], float]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Times several runs in turn: a slow moment of the machine meets all of them.

    A timed call follows an untimed call of the same run, as in a server that does
    nothing else. So no run pays for what another one left behind: threads that still
    spin, caches full of other weights.

    Args:
      runs: name -> a function that runs once and returns its seconds.
      repeats: timed calls of each.
      seconds: if three calls of each took longer, no more are made.

    Returns:
      Seconds of the timed calls, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for number in range(repeats):
        if number >= 3 and time.perf_counter() - start > seconds:
            break
        for name, run in runs.items():
            run()
            times[name].append(run())
    return times
