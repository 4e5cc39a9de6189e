"""What is saved with a text vocabulary and an instruction, on random models.

Under trie norm the models leave out the logits of words, and the head that all prompts
share is read once (`serving.decoders.Decoders`). Each is timed beside decoders that do
neither, interleaved.

    python -m atspeed_jax.benchmarks.instruction --vocabulary=32000 --model=4M
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from atspeed_jax.benchmarks.random_models import CODES, ITEMS, model_and_numbers, random_decoders
from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.prompts import shared_head
from atspeed_jax.items.catalog import BOS, Catalog, Instruction
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.timing import latencies

TAIL = 20  # tokens behind the items
NUMBERS = {"vocabulary": 32_000, "head": 50, "history": 10, "beams": 20, "batch": 1, "batches": 4, "repeats": 5}


def worded_catalog(vocabulary: int, head: int) -> Catalog:
    """Makes a random catalog behind `vocabulary` words, with an instruction whose first
    `head` tokens all prompts share.
    """
    words = tuple(range(2, 2 + head + TAIL))
    begin, tail = (BOS, *words[: head - 1]), words[head:]
    instruction = Instruction(begin, (words[-1],), tail, (*begin, *tail))
    return dataclasses.replace(Catalog.random(ITEMS, CODES).behind(vocabulary, BOS), instruction=instruction)


def variants(decoders: Decoders, head: Sequence[int]) -> dict[str, Decoders]:
    """Lists decoders with all logits and whole prompts, and with less of either."""
    everything = dataclasses.replace(decoders, first_code=0)
    return {
        "all logits, whole prompts": everything,
        "logits of codes": decoders,
        "shared head": everything.with_head(head),
        "both": decoders.with_head(head),
    }


def measure(model: str, given: dict[str, int]) -> list[list[str]]:
    """Times plain and speculative beam search with every variant.

    Args:
      model: name of one of SIZES.
      given: NUMBERS, or others by the same names.

    Returns:
      Rows of method, variant, milliseconds and the ratio of the first variant to it.
    """
    catalog = worded_catalog(given["vocabulary"], given["head"])
    users = np.random.default_rng(0).integers(0, ITEMS, (given["batch"] * given["batches"], given["history"]))
    batches = prompt_batches(catalog, list(users), BatchShape(given["history"], (given["history"],), given["batch"]))
    made = variants(random_decoders(model, catalog, 0).unrolled(), shared_head(catalog))
    tree = DecodeConfig((64,) * (catalog.length - 1), catalog.length - 1, "trie")
    rows = []
    for setting in (Setting.strict("none", given["beams"], tree), Setting.strict("draft", given["beams"], tree)):
        times = latencies({name: one.build(setting) for name, one in made.items()}, batches, repeats=given["repeats"])
        first = next(iter(times.values()))
        rows += [
            [setting.method, name, f"{np.median(own):.2f}", f"{np.median(first / own):.2f}"]
            for name, own in times.items()
        ]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a row per method and variant."""
    model, given = model_and_numbers(__doc__, NUMBERS, arguments)
    print(as_text(Table("text vocabulary", ["method", "variant", "ms", "ratio"], measure(model, given))))


if __name__ == "__main__":
    main()
