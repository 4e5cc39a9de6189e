"""Equality of lists where a model computes below float32.

Two batch shapes of one model round apart there, so the difference between speculation and plain beam search is held
against the difference between plain beam search and itself at another batch size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from atspeed_jax.evaluation.lists import Agreement
from atspeed_jax.evaluation.metrics import paired_difference
from atspeed_jax.models.llama import LlamaConfig

# Key of a figure, its column, and its format; "(itself)" is plain beam search at another batch size.
FIGURES = (
    ("same_list", "same list (itself)", ".3f"),
    ("items_shared", "items shared (itself)", ".4f"),
    ("score_gap", "score gap (itself)", ".5f"),
    ("largest_gap", "largest (itself)", ".4f"),
)


def is_low(model: LlamaConfig) -> bool:
    """Whether a model computes below float32, by its dtype or by the precision of its products."""
    return jnp.finfo(model.dtype).bits < 32 or model.precision != "highest"


def other_batch_size(batch_size: int) -> int:
    """The batch size at which plain beam search is held against itself."""
    return batch_size // 4 or 4


def compare(own: Agreement, itself: Agreement, *, arithmetic: str, batch_size: int, samples: int, seed: int) -> dict:
    """The "agreement" of a row: figures of `own`, of speculation with plain beam search; "itself", those of plain beam
    search with itself at `batch_size`; and "loses_more", the figures that are surely worse in `own`: beyond the 95 %
    interval of the difference, in pairs over the users."""
    lost = {
        "same_list": itself.same_list - own.same_list,
        "items_shared": itself.items_shared - own.items_shared,
        "score_gap": own.score_gap - itself.score_gap,
    }
    low = {name: paired_difference(each, 0 * each, samples=samples, seed=seed).low for name, each in lost.items()}
    loses_more = [name for name, bound in low.items() if bound > 0]
    about = {
        "arithmetic": arithmetic,
        "itself": itself.figures,
        "itself_batch_size": batch_size,
        "loses_more": loses_more,
    }
    return own.figures | about


def columns(rows: Sequence[Mapping]) -> list[str]:
    """Further columns of a table of equality; none where no row has an "agreement"."""
    return [column for _, column, _ in FIGURES] if any(row.get("agreement") for row in rows) else []


def cells(row: Mapping, absent: str) -> list[str]:
    """The cells of a row in these columns."""
    found = row.get("agreement")
    if not found:
        return [absent] * len(FIGURES)
    return [f"{found[key]:{digits}} ({found['itself'][key]:{digits}})" for key, _, digits in FIGURES]


def in_words(rows: Sequence[Mapping]) -> list[str]:
    """One sentence: whether speculation loses more than plain beam search itself; none where that was not measured."""
    measured = [row for row in rows if row.get("agreement")]
    if not measured:
        return []
    about = measured[0]["agreement"]
    worse = [
        f"K = {row['K']}, {row['drafter']}: {', '.join(row['agreement']['loses_more']).replace('_', ' ')}"
        for row in measured
        if row["agreement"]["loses_more"]
    ]
    more = f"more against plain beam search ({'; '.join(worse)})" if worse else "no more against plain beam search"
    beside = f"plain beam search does against itself in batches of {about['itself_batch_size']}"
    return [f"Computing in {about['arithmetic']}, speculation loses {more} than {beside}."]
