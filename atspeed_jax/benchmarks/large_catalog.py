"""Millions of items, large codebooks, many beams and long prompts, on random models.

    python -m atspeed_jax.benchmarks.large_catalog --items=1500000 --codes=8192 --levels=3 --beams=512

Prints seconds of the catalog and the trie, seconds of a list, the largest memory that
the process had, and for how many users speculative and plain beam search differ. Lists
that differ by rounding alone are equal in float64.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax

from atspeed_jax.benchmarks.random_models import model_and_numbers, random_decoders, random_prompts
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.serving.decode_users import count_differences, decode_users
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
    decoders, users = random_decoders(model, catalog, 0), given["users"]
    everyone = random_prompts(catalog, users, given["tokens"], 1)
    batches = [{name: values[user : user + 1] for name, values in everyone.items()} for user in range(users)]
    tree = DecodeConfig((2 * given["beams"],) * (given["levels"] - 1), given["levels"] - 1, "vocab")
    setting = Setting.strict("draft", given["beams"], tree)
    unrolled, found = decoders.unrolled(), {}
    for one in (setting.baseline, setting):
        found[one] = decode_users(unrolled.build(one), batches, users)
        seconds, calls = found[one].seconds / users, float(found[one].calls.mean())
        rows.append([f"{one.method}: s per user", f"{seconds:.3f} ({calls:.2f} target calls)"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES
    pair = setting, setting.baseline
    mismatched, ties = count_differences(decoders, *pair, found[setting], found[setting.baseline], batches)
    rows += [["largest memory, MiB", f"{peak:.0f}"], ["users whose lists differ", f"{mismatched + ties}"]]
    return rows + ([["of these in float64", f"{mismatched}"]] if mismatched + ties else [])


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    made = jax.block_until_ready(make())
    return made, time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what was measured."""
    model, given = model_and_numbers(__doc__, NUMBERS, arguments)
    print(as_text(Table("large catalog", ["figure", "value"], measure(model, given))))


if __name__ == "__main__":
    main()
