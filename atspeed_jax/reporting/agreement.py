"""What `evaluation.precision` measured, in the columns of a table and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Key of a figure, its column, and its format; "(itself)" is plain beam search at
# another batch size.
FIGURES = (
    ("same_list", "same list (itself)", ".3f"),
    ("items_shared", "items shared (itself)", ".4f"),
    ("score_gap", "score gap (itself)", ".5f"),
    ("largest_gap", "largest (itself)", ".4f"),
)


def columns(rows: Sequence[Mapping]) -> list[str]:
    """Further columns of a table of equality; none where no row has an "agreement"."""
    return [column for _, column, _ in FIGURES] if any(row.get("agreement") for row in rows) else []


def cells(row: Mapping, absent: str) -> list[str]:
    """The cells of a row in these columns; `absent` where it has no "agreement"."""
    found = row.get("agreement")
    if not found:
        return [absent] * len(FIGURES)
    return [f"{found[key]:{digits}} ({found['itself'][key]:{digits}})" for key, _, digits in FIGURES]


def in_words(rows: Sequence[Mapping]) -> list[str]:
    """Says whether speculation loses more than plain beam search itself.

    Returns:
      One sentence, or none where that was not measured.
    """
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
