"""What a trie of millions of items costs: to build, to keep, and in every step."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.beams import Beams
from atspeed_jax.decoding.children import Children, best_children, score_children
from atspeed_jax.items.levels import LevelTrie
from atspeed_jax.items.trie import Trie, TrieCapacity, build_trie, prefix_counts
from atspeed_jax.items.trie_files import load_trie, save_trie
from atspeed_jax.serving.timing import medians
from atspeed_jax.utils.program_memory import peak_memory

FIRST_CODE = 2  # after PAD and BOS, as in a catalog


@dataclasses.dataclass(frozen=True)
class TrieBenchmark:
    """What is built and timed.

    Attributes:
      length: L, codes per id.
      codes: per level.
      beams: K of a step.
      batch: users of a step.
      repeats: timings of a step; their median counts.
      seed: of ids, logits and beams.
    """

    length: int = 4
    codes: int = 2048
    beams: int = 20
    batch: int = 8
    repeats: int = 100
    seed: int = 0

    @property
    def vocab(self) -> int:
        return FIRST_CODE + self.length * self.codes


def random_ids(config: TrieBenchmark, items: int) -> np.ndarray:
    """Returns [items, L] distinct sorted token rows, uniform over all ids.

    Raises:
      ValueError: for more than half of all ids.
    """
    if items > config.codes**config.length // 2:
        raise ValueError(f"{items} items: expected at most half of the {config.codes}^{config.length} ids there are")
    rng = np.random.default_rng(config.seed)
    numbers = np.unique(rng.integers(0, config.codes**config.length, items))
    while len(numbers) < items:
        more = rng.integers(0, config.codes**config.length, items - len(numbers))
        numbers = np.unique(np.concatenate([numbers, more]))
    ids = np.empty((items, config.length), np.int32)
    for level in reversed(range(config.length)):
        ids[:, level] = FIRST_CODE + level * config.codes + numbers % config.codes
        numbers //= config.codes
    return ids


def measure_build(config: TrieBenchmark, items: int, directory: Path) -> dict:
    """Builds, saves and loads a trie of random ids, which is left in `directory`.

    Args:
      config: length and codes of the ids.
      items: number of ids.
      directory: of the trie's files.

    Returns:
      A row. peak_gib: memory of this process so far, so each size needs a new process.
      bytes_per_item: of the arrays with their padding. load_s: seconds to load with
      checksums, the arrays mapped into memory.
    """
    ids = random_ids(config, items)
    nodes = prefix_counts(ids)
    start = time.perf_counter()
    trie = build_trie(ids, TrieCapacity.padded(nodes, (config.codes,) * config.length))
    jax.block_until_ready(jax.tree.leaves(trie))
    build = time.perf_counter() - start
    peak = peak_memory() / 2**30
    size = sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(trie))
    save, load = _seconds(lambda: save_trie(directory, trie)), _seconds(lambda: load_trie(directory))
    kept = {"peak_gib": peak, "bytes_per_item": size / items, "save_s": save, "load_s": load}
    return {"items": items, "build_s": build, **kept}


def measure_steps(config: TrieBenchmark, directories: Sequence[Path]) -> list[dict]:
    """Times a step with the trie of each directory, and a step without a trie.

    All are interleaved, so that a drift of the machine meets all of them. All read the
    same logits, and all tries have one row width.

    Args:
      config: of the tries and the step.
      directories: see `measure_build`.

    Returns:
      A row per trie. step_us: time to find the K best children of K random nodes per
      user, with scores over the vocabulary, mean over levels 1..L-1.
      unconstrained_topk_us: the same among all codes of the level.
    """
    steps = {}
    for number, directory in enumerate(directories):
        for name, call in _steps(config, jax.device_put(load_trie(directory))).items():
            steps[number, name] = functools.partial(_seconds, call)
    medians(steps, repeats=1)  # compiles
    times = medians(steps, repeats=config.repeats)
    rows: list[dict[str, float]] = [{} for _ in directories]
    for (number, name), seconds in times.items():
        rows[number][name] = 1e6 * seconds / (config.length - 1)
    return rows


def _steps(config: TrieBenchmark, trie: Trie) -> dict[str, Callable]:
    """Returns calls to be timed, by name. Each goes over levels 1..L-1."""
    shape, levels = (config.batch, config.beams), range(1, config.length)
    rng = np.random.default_rng(config.seed)
    logits = jnp.asarray(rng.normal(size=(*shape, config.vocab)), jnp.float32)
    nodes = [int(rows[-1]) for rows in trie.row_start]  # of depth 1..L
    none, valid = jnp.zeros((*shape, config.length), jnp.int32), jnp.ones(shape, bool)
    beams = [
        Beams(none, none, jnp.zeros(shape), jnp.asarray(rng.integers(0, nodes[level - 1], shape), jnp.int32), valid)
        for level in levels
    ]

    @jax.jit
    def constrained(trie, beams, logits):
        return [
            best_children(trie, score_children(trie, level, parents, logits, norm="vocab"), config.beams)
            for level, parents in zip(levels, beams, strict=True)
        ]

    free = LevelTrie(
        tuple(FIRST_CODE + level * config.codes + jnp.arange(config.codes) for level in range(config.length))
    )

    @jax.jit
    def unconstrained(beams, logits):
        found = []
        for level, parents in zip(levels, beams, strict=True):
            start = FIRST_CODE + level * config.codes
            log_prob = jax.nn.log_softmax(logits, -1)[..., start : start + config.codes]
            code = jnp.broadcast_to(jnp.arange(config.codes), log_prob.shape)
            children = Children(parents, code, code + start, log_prob, jnp.ones(code.shape, bool), level=level)
            found.append(best_children(free, children, config.beams))
        return found

    return {
        "step_us": functools.partial(constrained, trie, beams, logits),
        "unconstrained_topk_us": functools.partial(unconstrained, beams, logits),
    }


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
