"""What speculation does at each K, in one sentence: the first that a reader sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atspeed_jax.reporting.document import Headline
from atspeed_jax.reporting.tables import method_label, widths_label

# A speed-up inside these bounds is none: plain beam search is as fast.
SLOWER, FASTER = 0.97, 1.03


def headlines(rows: Sequence[Mapping]) -> list[Headline]:
    """One headline per K, smallest first.

    Args:
      rows: decoding rows of a report. Of the rows of one K, the tuned one counts;
        without one, the row whose speed-up is surest (`chosen_row`).
    """
    ks = sorted({row["K"] for row in rows})
    found = [headline_of([row for row in rows if row["K"] == k]) for k in ks]
    return [headline for headline in found if headline is not None]


def headline_of(alike: Sequence[Mapping]) -> Headline | None:
    """The headline of the rows of one K; None without a row of speculation."""
    row = chosen_row(alike)
    return None if row is None else _headline(row, next(filter(_is_plain, alike), None), alike)


def chosen_row(alike: Sequence[Mapping]) -> Mapping | None:
    """The row that the headline of a K is about.

    Args:
      alike: the rows of one K.

    Returns:
      The tuned row; without one, the strict speculative row that is surely faster than
      plain beam search, by the largest lower bound; where none is, that of a draft
      model; without times, that with the fewest target calls. None without a row of
      speculation.
    """
    tuned = [row for row in alike if row.get("tuned")]
    if tuned:
        return tuned[0]
    strict = [row for row in alike if row["method"] == "speculative" and row["mode"] == "strict"]
    timed = [row for row in strict if row.get("ws_vs_beam_search") is not None]
    if timed:
        return max(timed, key=lambda row: (_pays(row), _pays(row) or row["drafter"] == "draft", interval(row)[0]))
    counted = [row for row in strict if row["target_calls_mean"] is not None]
    return min(counted, key=lambda row: row["target_calls_mean"]) if counted else None


def interval(row: Mapping) -> tuple[float, float]:
    """The 95 % interval of a row's speed-up; the speed-up twice where that was not
    measured.
    """
    low, high = row.get("ws_interval") or [row["ws_vs_beam_search"]] * 2
    return low, high


def _pays(row: Mapping) -> bool:
    """Whether a row is surely faster than plain beam search, by a share that counts."""
    return interval(row)[0] > 1 and row["ws_vs_beam_search"] >= FASTER


def way_in_words(row: Mapping) -> str:
    """How a row decodes: "speculative, draft model, widths all, 64, 96, tuned"."""
    words = [method_label(row)]
    words += [f"widths {widths_label(row['widths'], row.get('budget'))}"] if row["widths"] else []
    return ", ".join([*words, *(["tuned"] if row.get("tuned") else [])])


def _is_plain(row: Mapping) -> bool:
    return row["method"] == "beam_search" and row["mode"] == "strict"


def _headline(row: Mapping, plain: Mapping | None, alike: Sequence[Mapping]) -> Headline:
    """The headline of one K.

    Args:
      row: the row that it is about.
      plain: plain beam search at this K; None where it was not measured.
      alike: all rows of this K.
    """
    label, calls = f"K = {row['K']}", _in_calls(row, plain)
    if _is_plain(row):  # tuned, and nothing was faster
        return Headline(label, "plain", f"{label}: plain beam search is the fastest way here{_saving(alike)}.", "alike")
    if row["mismatched_users"] or row.get("equal") is False:
        whose = f"the lists of {row['mismatched_users']} users" if row["mismatched_users"] else "the lists"
        text = f"{label}: {whose} are not those of plain beam search"
        return Headline(label, "other lists", f"{text}, so no speed-up is claimed.", "wrong")
    same, ratio = f"the same lists{calls}", row.get("ws_vs_beam_search")
    if ratio is None:
        return Headline(label, "not timed", f"{label}: {same}; no time was measured.", "untimed")
    low, high = interval(row)
    figure = f"{ratio:.1f}x" if ratio >= 0.995 else f"{ratio:.2f}x"
    who = " without a draft model" if row["drafter"] == "popularity" else ""
    if _pays(row):
        return Headline(label, figure, f"{label}: {same}, {figure} as fast here{who}.", "faster")
    if high < 1 and ratio <= SLOWER:
        text = f"{label}: plain beam search is faster here: speculation{who} gives {same}, but {figure} as fast."
        return Headline(label, figure, text, "slower")
    least = "at least as" if ratio <= SLOWER else "as"
    text = f"{label}: plain beam search is {least} fast here: speculation{who} gives {same}, {ratio:.2f}x as fast"
    sure = f" (95 % interval {low:.2f} to {high:.2f})" if row.get("ws_interval") else ""
    return Headline(label, figure, f"{text}{sure}.", "alike")


def _saving(alike: Sequence[Mapping]) -> str:
    """What speculation would save where plain beam search was chosen; may be empty.

    Args:
      alike: all rows of one K.
    """
    plain = next((row for row in alike if _is_plain(row)), None)
    counted = [row for row in alike if not _is_plain(row) and row["target_calls_mean"] is not None]
    best = min(counted, key=lambda row: row["target_calls_mean"], default=None)
    return "" if best is None else f", though speculation gives the same lists{_in_calls(best, plain)}"


def _number(calls: float) -> str:
    """Mean target calls with one decimal, "1.1"; a whole number of them without, "4"."""
    return f"{calls:.0f}" if calls == round(calls) else f"{calls:.1f}"


def _in_calls(row: Mapping, plain: Mapping | None) -> str:
    """ " in 1.1 calls instead of 4"; empty where calls were not counted.

    Args:
      row: of speculation.
      plain: plain beam search at the same K; None where it was not measured.
    """
    calls, alone = row["target_calls_mean"], None if plain is None else plain["target_calls_mean"]
    if calls is None:
        return ""
    if alone is None and row["accept_steps_mean"] is not None:
        alone = calls + row["accept_steps_mean"]
    text = f" in {_number(calls)} {'call' if calls == 1 else 'calls'}"
    return text if alone is None else f"{text} instead of {_number(alone)}"
