"""Whether the lists of a method are those of plain beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from atspeed_jax.benchmarks.decode_bench import Bench, Timed
from atspeed_jax.benchmarks.hugging_face import differing_in_float64
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.evaluation import precision
from atspeed_jax.serving.decode_users import Decoded, count_differences, decode_users
from atspeed_jax.serving.lists import agreement, differing

LEAST_SHARED = 0.9  # below float32: lists of one model share at least so many items


def equality(bench: Bench, one: Timed, plain: Timed, batches: Sequence[dict]) -> dict:
    """Whether the lists are those of the target alone, as the evaluation says it.

    The second look in float64 is at the trained pair, whose logits the larger target
    has. `generate` below float32 gets none: its weights are rounded where those of the
    pair are not, and a large model does not fit in float64. The items that its lists
    share with ours count.
    """
    setting, suite = one.way.setting, bench.suite
    figures = agreement(one.decoded, plain.decoded).figures
    row: dict[str, Any] = {
        "same_list": figures["same_list"],
        "items_shared": figures["items_shared"],
        "agreement": None,
    }
    if selection_of(setting.search.mode).tests_draws and setting.method == "speculative":
        return row | {"equal": None, "mismatched_users": None, "near_tie_users": None}  # equal in law alone
    counts, low = (0, 0), precision.is_low(bench.decoders.target)
    if one.way.method == "hf":
        counts = (0, 0) if low else _differing_from_generate(bench, one, plain, batches)
    elif one is not plain:
        settings = setting, setting.baseline
        counts = count_differences(bench.trained, *settings, one.decoded, plain.decoded, batches, one.keys)
    equal = counts[0] == 0
    if low:
        equal &= figures["items_shared"] >= LEAST_SHARED
        if suite.noise and one is not plain:
            itself = agreement(_in_other_batches(plain, batches), plain.decoded)
            how = {"arithmetic": bench.decoders.target.arithmetic, "samples": suite.samples, "seed": suite.seed}
            size = precision.other_batch_size(len(batches[0]["row"]))
            found = precision.compare(agreement(one.decoded, plain.decoded), itself, batch_size=size, **how)
            row["agreement"] = found
            equal &= not found["loses_more"]
    return row | {"equal": bool(equal), "mismatched_users": counts[0], "near_tie_users": counts[1]}


def _differing_from_generate(bench: Bench, one: Timed, plain: Timed, batches: Sequence[dict]) -> tuple[int, int]:
    """(users whose lists differ, users whose lists differ by rounding alone): both sides
    decode users whose lists differ once more in float64.
    """
    differ = differing(one.decoded, plain.decoded)
    if not differ.any():
        return 0, 0
    some = {name: np.concatenate([batch[name] for batch in batches])[differ] for name in ("tokens", "valid")}
    far = differing_in_float64(bench.hugging_face, bench.trained, some, plain.way.setting.search.beams)
    return int(far.sum()), int((~far).sum())


def _in_other_batches(plain: Timed, batches: Sequence[dict]) -> Decoded:
    """Plain beam search of the same users in batches of another size."""
    size = precision.other_batch_size(len(batches[0]["row"]))
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in ("tokens", "valid", "row")}
    users = len(rows["row"])
    filled = -(-users // size) * size

    def part(start: int) -> dict:
        own = np.arange(start, start + size) % users
        batch = {name: values[own] for name, values in rows.items()}
        return batch | {"row": np.where(np.arange(start, start + size) < users, batch["row"], -1)}

    return decode_users(plain.decode, [part(start) for start in range(0, filled, size)], users, plain.keys)
