"""Side by side with Hugging Face `generate`: the same weights, users and K, in one run, interleaved.

Targets have random weights and the catalogue random ids; the draft is the target's own first layers, so that acceptance
is neither perfect nor none.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from absl import flags

from atspeed_jax.benchmarks.plot import speed_up_plot
from atspeed_jax.decoding.config import Widths, prefixes_by_norm
from atspeed_jax.items.catalog import BOS, Catalog
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.timing import run_once
from atspeed_jax.utils import files
from atspeed_jax.utils.ranges import BatchSize, Beams, Range, Seed, check_ranges
from launch.command_line import define_numbers
from launch.hugging_face import HuggingFace, Peers, in_both_worlds, same_lists
from launch.stage import FLAGS

PromptTokens = Annotated[int, Range(1, 100_000)]
CODES = (91, 256, 256, 256)  # of the random catalogue: levels as wide as Beauty's
ITEMS = 12_000
# Name -> (hidden, intermediate, layers): about 4, 25 and 110 million parameters with the vocabulary above.
SIZES = {"4M": (256, 688, 4), "25M": (512, 1376, 8), "110M": (768, 3072, 12)}


@dataclasses.dataclass(frozen=True)
class PeersConfig:
    """models: names of SIZES. batches, beams, prompts: users at once, K, tokens per prompt. widths: of the speculation.
    repeats: timed rounds; a cell whose rounds take longer than `seconds` stops after three of them."""

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


def random_config(name: str, vocab_size: int) -> LlamaConfig:
    hidden, intermediate, layers = SIZES[name]
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=layers,
        heads=hidden // 64,
        kv_heads=hidden // 64,
        head_dim=64,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        tied_embeddings=True,
        dropout=0.0,
        dtype="float32",
        remat=False,
    )


def random_params(config: LlamaConfig, seed: int) -> dict[str, Any]:
    """Random weights whose logits spread over some nats, unlike a fresh initialisation's."""
    params = init_params(config, jax.random.key(seed))
    return params | {"norm": {"scale": params["norm"]["scale"] * 6.0}}


def first_layers(config: LlamaConfig, params: Mapping, layers: int) -> tuple[LlamaConfig, dict[str, Any]]:
    """The model that leaves a Llama after so many layers (embedding, norm and head are shared)."""
    fewer = jax.tree.map(lambda leaf: leaf[:layers], params["layers"])
    return dataclasses.replace(config, layers=layers), dict(params) | {"layers": fewer}


def random_catalog(seed: int) -> Catalog:
    codes = np.random.default_rng(seed).integers(0, CODES, (ITEMS, len(CODES)))
    return Catalog(codes, CODES)


def random_prompts(catalog: Catalog, batch: int, tokens: int, seed: int) -> dict[str, np.ndarray]:
    """Histories of as many items as fit into `tokens`, behind BOS; row: as `data.batches.prompt_batches` has it."""
    items = np.random.default_rng(seed).integers(0, catalog.items, (batch, tokens // catalog.length))
    ids = catalog.tokens(items).reshape(batch, -1)
    rows = np.concatenate([np.full((batch, 1), BOS, np.int32), ids], 1)
    return {"tokens": rows, "valid": np.ones(rows.shape, bool), "row": np.arange(batch)}


def random_decoders(name: str, catalog: Catalog, seed: int) -> Decoders:
    config = random_config(name, catalog.vocab_size)
    params = jax.jit(random_params, static_argnums=(0, 1))(config, seed)
    trie = build_trie(catalog.id_tokens)
    prior = popularity_prior(trie, catalog.id_tokens, np.ones(len(catalog.ids)))
    draft = first_layers(config, params, max(1, config.layers // 4))
    return Decoders(config, params, *draft, trie, prior, prefixes_by_norm(catalog.id_tokens))


def measure_peers(config: PeersConfig, say: Callable[[str], None]) -> list[dict]:
    """Rows of every cell of the random models; 110M is measured one user at a time only."""
    catalog, rows = random_catalog(config.seed), []
    decode = DecodeConfig(config.widths, len(CODES) - 1, "vocab")
    for name in config.models:
        decoders = random_decoders(name, catalog, config.seed)
        with in_both_worlds(name, decoders, catalog, decode) as peers:
            for batch in config.batches if name != "110M" else (1,):
                for tokens in config.prompts:
                    users = random_prompts(catalog, batch, tokens, config.seed)
                    rows += [row for beams in config.beams for row in measure_cell(peers, users, beams, config, say)]
    return rows


def measure_cell(
    peers: Peers, batch: Mapping[str, np.ndarray], beams: int, config: PeersConfig, say: Callable[[str], None]
) -> list[dict]:
    """{"model", "params_m", "batch", "K", "prompt", "method", "ms_p50", "ms_p95", "ratio_to_hf", "work_ratio", "equal",
    "target_calls"} of every method.

    ratio_to_hf: median time of `generate` without constraint by the method's. work_ratio: token forwards of `generate`,
    which reads the prompt K times, by those of a shared prompt, K(P+L-1) / (P+(L-1)K). equal: whether all lists are
    those of our beam search (`same_lists`); None without constraint, which may name no item. "_unrolled": the same with
    layers side by side (`decode.unroll`).
    """
    settings = {
        "beam_search": Setting.beam_search(beams, "vocab"),
        "speculative": Setting.strict("draft", beams, peers.decode),
    }
    own = {name: peers.decoders.build(setting) for name, setting in settings.items()}
    own |= {f"{name}_unrolled": peers.unrolled.build(setting) for name, setting in settings.items()}
    runs: dict[str, Callable[[], float]] = {
        "hf_generate": functools.partial(_timed, peers.theirs, batch, beams, trie=False),
        "hf_generate_trie": functools.partial(_timed, peers.theirs, batch, beams, trie=True),
        **{name: functools.partial(run_once, decode, batch) for name, decode in own.items()},
    }
    for run in runs.values():
        run()  # compiles, and warms up
    times = interleaved(runs, config.repeats, config.seconds)
    results = {name: decode(prompt_of(batch)) for name, decode in own.items()}
    equal = {
        "hf_generate": None,
        "hf_generate_trie": same_lists(peers, batch, beams, results["beam_search"]),
        **{name: not differing(result, results["beam_search"]).any() for name, result in results.items()},
    }
    length, width = peers.theirs.length, batch["tokens"].shape[1]
    middle = {name: float(np.median(values)) for name, values in times.items()}
    rows = [
        {
            "model": peers.name,
            "params_m": round(peers.params_m, 2),
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
    say(f"{peers.name}, batch {len(batch['tokens'])}, K={beams}, prompt {width}: " + _ratios(rows))
    return rows


def _ratios(rows: Sequence[Mapping]) -> str:
    return ", ".join(f"{row['method']} {row['ms_p50']:.1f} ms ({row['ratio_to_hf']:.2f}x)" for row in rows)


def _timed(theirs: HuggingFace, batch: Mapping, beams: int, *, trie: bool) -> float:
    start = time.perf_counter()
    theirs(batch, beams, trie=trie)
    return time.perf_counter() - start


def interleaved(runs: Mapping[str, Callable[[], float]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Seconds that each run returns, `repeats` times in turn, or three times if those took longer than `seconds`.

    Each timed run follows an untimed one of its own, as in a server that does nothing else: nobody pays for what
    another left behind, thread pools that still spin and caches full of its weights.
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


def define_flags() -> None:
    """Defines the flags of these suites."""
    flags.DEFINE_list("models", list(SIZES), "Of the peers suite: sizes of the targets.")
    define_numbers("batches", "1,8", BatchSize, "Of the peers suite: users at once (110M: 1 alone).")
    define_numbers("ks", "1,5,20", Beams, "Of the peers suite: K.")
    define_numbers("prompts", "80,300", PromptTokens, "Of the peers suite: tokens per prompt, BOS apart.")
    flags.DEFINE_integer("repeats", 15, "Of the peers suite: timed rounds of each cell.", 3, 10_000)
    flags.DEFINE_float("seconds", 20.0, "Of the peers suite: a slower cell stops after three rounds.", 0.0, 1e6)


def peers_rows(path: Path) -> list[dict]:
    """The rows that the flags ask for; a plot of them is written beside `path`."""
    if stray := set(FLAGS.models) - SIZES.keys():
        raise ValueError(f"--models={min(stray)}: expected some of {', '.join(SIZES)}")
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"--suite=peers needs {name}: pip install -r tests/peers.txt")
    config = PeersConfig(
        models=tuple(FLAGS.models),
        batches=tuple(FLAGS.batches),
        beams=tuple(FLAGS.ks),
        prompts=tuple(FLAGS.prompts),
        widths=("all", 64, 96),
        repeats=FLAGS.repeats,
        seconds=FLAGS.seconds,
    )
    rows = measure_peers(config, lambda text: print(f"[peers] {text}", flush=True))
    files.write_bytes(path.with_suffix(".png"), speed_up_plot(rows))
    return rows
