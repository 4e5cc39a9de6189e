"""What each drafter saves, in plain words, from the decoding rows of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from atspeed_jax.reporting.tables import ABSENT, widths_label

NAMES = {"draft": "The draft model", "popularity": "The popularity prior"}
NOTICED = 0.005  # what the two digits of a figure show


def in_words(rows: Sequence[Mapping]) -> list[str]:
    """Says per drafter which calls and which time it saves, at the widths that each K
    is measured with first, and where it saves nothing.

    A draft model saves calls if it saves more than the popularity prior at the same K
    and widths, which needs no model. Time is saved if a list comes sooner than by plain
    beam search at batch 1.

    Returns:
      One sentence per drafter.
    """
    speculative = [row for row in rows if row["method"] == "speculative" and row["accept_steps_mean"] is not None]
    sentences = []
    for drafter in dict.fromkeys(row["drafter"] for row in speculative):
        drafted = {row["K"]: row for row in reversed(speculative) if row["drafter"] == drafter}
        drafted = [drafted[k] for k in dict.fromkeys(row["K"] for row in speculative) if k in drafted]
        ways = [_way(row) for row in drafted]
        alike = [row for row in speculative if drafter == "draft" and row["drafter"] == "popularity"]
        prior = {row["K"]: row["accept_steps_mean"] for row in alike if _way(row) in ways}
        sentences.append(_sentence(drafter, drafted, prior))
    return sentences


def _way(row: Mapping) -> tuple:
    """How a row decodes, but for the drafter: rows of one way can be compared."""
    return row["K"], tuple(row["widths"] or ()), row.get("budget"), row["mode"], row["score_norm"]


def _sentence(drafter: str, drafted: Sequence[Mapping], prior: Mapping[int, float]) -> str:
    """The sentence of one drafter.

    Args:
      drafter: its name.
      drafted: the drafter's rows, one per K.
      prior: calls that the popularity prior saves, by K.
    """
    whole = drafted[0]["target_calls_mean"] + drafted[0]["accept_steps_mean"]
    widths = list(dict.fromkeys(widths_label(row["widths"], row.get("budget")) for row in drafted))
    text = f"{NAMES.get(drafter, drafter)} (widths {'; '.join(widths)}) saves "
    text += f"{_figures(row['accept_steps_mean'] for row in drafted)} of {whole:g} target calls per user"
    text += f" at K = {_enumerated(row['K'] for row in drafted)}"
    if prior:
        text += f" (the popularity prior, which needs no model, {_figures(prior.get(row['K']) for row in drafted)})"
    timed = [row["ws_vs_beam_search"] for row in drafted]
    if any(timed):
        text += f"; a list at batch 1 comes {_figures(timed)} times as fast as by plain beam search"
    fewer = [row["accept_steps_mean"] > max(0.0, prior.get(row["K"], 0.0)) + NOTICED for row in drafted]
    sooner = [ratio is not None and ratio > 1 + NOTICED for ratio in timed]
    return text + _verdict(drafter, [row["K"] for row in drafted], fewer, sooner if any(timed) else None) + "."


def _verdict(drafter: str, ks: Sequence[int], fewer: Sequence[bool], sooner: Sequence[bool] | None) -> str:
    """What the figures come to where they are not good alone: at which K nothing is
    saved, or that no time is saved.

    Args:
      drafter: its name.
      ks: each K.
      fewer: per K, whether calls are saved.
      sooner: per K, whether time is saved; None where no time was measured.
    """
    this = "this draft" if drafter == "draft" else "this drafter"
    nothing = [k for k, calls, time in zip(ks, fewer, sooner or fewer, strict=True) if not (calls or time)]
    if nothing:
        return f": {this} saves nothing here" + (f" at K = {_enumerated(nothing)}" if len(nothing) < len(ks) else "")
    return "" if sooner is None or any(sooner) else f": {this} saves calls here, but no time"


def _figures(values: Iterable[float | None]) -> str:
    """ "1.25, 1.03 and 1.01", or one figure where all are alike."""
    texts = [ABSENT if value is None else f"{value:.2f}" for value in values]
    return texts[0] if len(set(texts)) == 1 else _enumerated(texts)


def _enumerated(values: Iterable) -> str:
    """ "1, 5 and 20"."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
