"""The HTML page of a benchmark suite, beside the JSON file of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from atspeed_jax.benchmarks.plot import generate_picture, ratio_pictures
from atspeed_jax.reporting import html_page
from atspeed_jax.reporting.document import Document, Headline, Section, Sentences
from atspeed_jax.reporting.environment import environment, what_was_run
from atspeed_jax.reporting.headlines import headline_of
from atspeed_jax.reporting.tables import ABSENT, Table, key_values
from atspeed_jax.utils import files

# Columns that stand first: what a row is of, then the main figures.
FIRST = (
    *("method", "mode", "shape", "model", "batch", "K", "prompt"),
    *(
        "ms",
        "ms_p50",
        "ms_p95",
        "ratio_to_plain",
        "ratio_low",
        "ratio_high",
        "target_calls_mean",
        "equal",
        "floor_ratio",
    ),
)
HIDDEN = ("cell", "finished", "settings", "note", "agreement", "device_time")
# Methods of suite decode, as the decoding rows of a report name them: method, drafter.
_METHODS = {
    "plain": ("beam_search", "none"),
    "speculative": ("speculative", "draft"),
    "popularity": ("speculative", "popularity"),
}


def write_page(path: Path, suite: str, rows: Sequence[Mapping]) -> Path:
    """Writes the page of a suite.

    Args:
      path: of the JSON file with the rows; the page gets its name, with .html.
      suite: its name.
      rows: one or more, all with the same keys.

    Returns:
      the path of the page.
    """
    page = path.with_suffix(".html")
    files.write_text(page, html_page.render(document(suite, rows, {**what_was_run(), "rows": str(path)})))
    return page


def document(suite: str, rows: Sequence[Mapping], run: Mapping) -> Document:
    """What the page of a suite says.

    Args:
      suite, rows: see `write_page`.
      run: command, date and versions (`report.what_was_run`).
    """
    place, alike = environment(), _constant(rows)
    found = headlines(rows)
    pictures = [*ratio_pictures(rows), *generate_picture(rows)]
    notes = list(dict.fromkeys(str(row["note"]) for row in rows if row.get("note")))
    sections = [Section("Speed", pictures)] if pictures else []
    sections.append(Section("Measurements", [*_same_everywhere(alike), rows_table(rows, alike)]))
    named = {key: value for key, value in run.items() if value is not None}
    sections.append(Section("What was run", [key_values("Run", named), key_values("Environment", place)]))
    return Document(
        title=f"Benchmark: {suite.replace('_', ' ')}",
        about=f"{len(rows)} rows · device {place['device']} · {str(run.get('written', '')).partition(' ')[0]}",
        headlines=found,
        notes=notes,
        sections=sections,
    )


def headlines(rows: Sequence[Mapping]) -> list[Headline]:
    """One headline per shape and K of suite decode: the first batch size and prompt,
    strict speculation with a draft model beside plain beam search.
    """
    found = []
    if not all("ratio_to_plain" in row for row in rows):
        return found
    cells: dict[tuple, list[dict]] = {}
    first: dict[tuple, tuple] = {}
    for row in rows:
        key, place = (row["shape"], row["K"]), (row["batch"], row["prompt"])
        if first.setdefault(key, place) == place and row["mode"] == "strict" and row["method"] in _METHODS:
            cells.setdefault(key, []).append(_decoding_row(row))
    for (shape, _), alike in cells.items():
        one = headline_of([row for row in alike if row["drafter"] != "popularity"])
        if one is not None:
            named = {"label": f"{shape}, {one.label}", "sentence": f"{shape}, {one.sentence}"}
            found.append(one._replace(**named))
    return found


def _decoding_row(row: Mapping) -> dict:
    """A row of suite decode in the form of a report's decoding rows."""
    method, drafter = _METHODS[row["method"]]
    low, high = row.get("ratio_low"), row.get("ratio_high")
    return {
        "method": method,
        "drafter": drafter,
        "mode": row["mode"],
        "K": row["K"],
        "widths": row.get("widths"),
        "budget": row.get("budget"),
        "target_calls_mean": row["target_calls_mean"],
        "accept_steps_mean": None,
        "mismatched_users": row.get("mismatched_users") or 0,
        "equal": row["equal"],
        "ws_vs_beam_search": row["ratio_to_plain"],
        "ws_interval": None if low is None or high is None else [low, high],
    }


def _constant(rows: Sequence[Mapping]) -> dict:
    """The columns that say the same in every row, where there are several rows."""
    if len(rows) < 2:
        return {}
    names = [name for name in rows[0] if name not in HIDDEN and name != "method"]
    return {name: rows[0][name] for name in names if all(row.get(name) == rows[0][name] for row in rows)}


def _same_everywhere(alike: Mapping) -> list[Table]:
    if not alike:
        return []
    return [Table("The same in every row", ["", "value"], [[_name(key), _cell(alike[key])] for key in alike])]


def rows_table(rows: Sequence[Mapping], without: Mapping) -> Table | Sentences:
    """All rows, but for the columns `without`; those of FIRST stand first."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in HIDDEN]
    shown = [name for name in names if name not in without]
    if not shown:
        return Sentences(["All rows are alike."])
    shown.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))  # stable
    return Table("Rows", [_name(name) for name in shown], [[_cell(row.get(name)) for name in shown] for row in rows])


def _name(key: str) -> str:
    return key.replace("_", " ")


def _cell(value) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or ABSENT
    return json.dumps(value) if isinstance(value, dict) else f"{value:,}" if isinstance(value, int) else str(value)
