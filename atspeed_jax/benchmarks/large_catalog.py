"""Millions of items, large codebooks, many beams and long prompts, on random models.

    python -m atspeed_jax.benchmarks.large_catalog --items=1500000 --codes=8192 --levels=3 --beams=512

Prints seconds of the catalog and the trie, seconds of a list, the largest memory that
the process had, and for how many users speculative and plain beam search differ. Lists
that differ by rounding alone are equal in float64.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from atspeed_jax.benchmarks.random_models import SIZES, random_decoders, random_prompts
from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import DecodeConfig, Setting

T = TypeVar("T")
NUMBERS = {"items": 1_500_000, "codes": 8_192, "levels": 3, "beams": 512, "users": 20, "tokens": 60}
KIBIBYTES = 1024  # of a mebibyte: ru_maxrss counts kibibytes on Linux


def measure(model: str, given: dict[str, int]) -> list[list[str]]:
    """Decodes users one after the other, by plain and by speculative beam search.

    Args:
      model: name of one of SIZES.
      given: NUMBERS, or others by the same names.

    Returns:
      Rows of what was measured, and its value.
    """
    catalog = Catalog.random(given["items"], (given["codes"],) * given["levels"])
    ids, id_seconds = _timed(lambda: catalog.id_tokens)
    _, trie_seconds = _timed(lambda: build_trie(ids))
    rows = [["distinct ids", f"{len(ids)}"], ["sorted ids, s", f"{id_seconds:.2f}"], ["trie, s", f"{trie_seconds:.2f}"]]
    decoders = random_decoders(model, catalog, 0)
    batch = random_prompts(catalog, given["users"], given["tokens"], 1)
    tree = DecodeConfig((2 * given["beams"],) * (given["levels"] - 1), given["levels"] - 1, "vocab")
    settings = [Setting.strict(drafter, given["beams"], tree) for drafter in ("none", "draft")]
    lists = []
    for setting in settings:
        found, seconds = _lists(decoders.unrolled().build(setting), prompt_of(batch))
        lists.append(found)
        calls = float(np.mean(found.target_calls))
        rows.append([f"{setting.method}: s per user", f"{np.median(seconds):.3f} ({calls:.2f} target calls)"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES
    differ = differing(*lists)
    rows += [["largest memory, MiB", f"{peak:.0f}"], ["users whose lists differ", f"{differ.sum()}"]]
    if differ.any():
        rows.append(["of these in float64", f"{_differing_in_float64(decoders, settings, batch, differ)}"])
    return rows


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    made = jax.block_until_ready(make())
    return made, time.perf_counter() - start


def _lists(decode: Callable[[Prompt], Result], prompt: Prompt) -> tuple[Result, list[float]]:
    """The lists of all users, and the seconds that each took but the first, who waits
    for the compilation.
    """
    found, seconds = [], []
    for user in range(prompt.tokens.shape[0]):
        one, took = _timed(lambda user=user: decode(jax.tree.map(lambda x: x[user : user + 1], prompt)))
        found.append(jax.device_get(one))
        seconds.append(took)
    joined = {name: np.concatenate([getattr(one, name) for one in found]) for name in ("tokens", "score", "valid")}
    calls = np.concatenate([one.target_calls for one in found])
    return found[0].replace(**joined, target_calls=calls), seconds[1:] or seconds


def _differing_in_float64(decoders: Decoders, settings: list[Setting], batch: dict, differ: np.ndarray) -> int:
    """Number of users, of those whose lists differ, whose lists differ in float64."""
    some = {name: np.asarray(values)[differ] for name, values in batch.items()}
    with jax.enable_x64(True):
        wide = decoders.in_float64()
        return int(differing(*(_lists(wide.build(setting), prompt_of(some))[0] for setting in settings)).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--model", default="4M", choices=list(SIZES))
    for name, default in NUMBERS.items():
        parser.add_argument(f"--{name}", default=default, type=int)
    given = vars(parser.parse_args(arguments))
    print(as_text(Table("large catalog", ["figure", "value"], measure(given.pop("model"), given))))


if __name__ == "__main__":
    main()
