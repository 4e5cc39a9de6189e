"""The tables of a report, of the modes of the decoder and of tuning.

Each is made once, and shown as Markdown or as text for a terminal.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from atspeed_jax.evaluation.quality import HABITS
from atspeed_jax.reporting import agreement

ABSENT = "–"


class Table(NamedTuple):
    """Cells as text; the first column is aligned to the left, others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def report_tables(report: Mapping) -> list[Table]:
    """Every table of a valid report, in reading order.

    Differences of quality are shown only if the report has them.
    """
    rows = report["decoding"]
    return [
        key_values("Dataset", report["dataset"]),
        *quality_tables(report["quality"]),
        calls_table(rows),
        speed_table(rows),
        key_values("Environment", report["environment"]),
    ]


def quality_tables(quality: Mapping) -> list[Table]:
    """Quality of every method and, where a report has them, paired differences."""
    methods = {
        name: habits for name, habits in quality.items() if isinstance(habits, Mapping) and name != "differences"
    }
    tables = [_quality("Quality, mean over users [95 % interval]", methods)]
    if quality.get("differences"):
        tables.append(_quality("Quality, paired differences [95 % interval]", quality["differences"]))
    return tables


def as_markdown(table: Table, level: int = 2) -> str:
    """The table in Markdown, under a heading of `level`."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    header, *rows = ([markdown_text(cell) for cell in cells] for cells in (table.header, *table.rows))
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]
    return "\n".join([f"{'#' * level} {markdown_text(table.title)}", "", *lines, ""])


def markdown_text(text: str) -> str:
    """Text on one line whose characters mean nothing to Markdown or HTML."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return escaped.replace("|", "\\|")


def as_text(table: Table) -> str:
    """The table as aligned columns for a terminal."""
    widths = [max(len(row[column]) for row in (table.header, *table.rows)) for column in range(len(table.header))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in (table.header, *table.rows))
    ]
    return "\n".join([table.title, *(f"  {line}".rstrip() for line in lines), ""])


def widths_label(widths: Sequence[int | str] | None, budget: int | None = None) -> str:
    """Beam widths per level as in the configs, and how many of these nodes are read:
    "all, 64, 96; best 128".
    """
    label = ", ".join(map(str, widths)) if widths else ABSENT
    return label if budget is None else f"{label}; best {budget}"


def method_label(row: Mapping) -> str:
    """Short name of a decoding row's method, with its drafter."""
    if row["method"] == "beam_search":
        return "beam search"
    drafter = {"draft": "draft model", "popularity": "popularity prior", "none": "no drafter"}
    return f"speculative, {drafter.get(row['drafter'], row['drafter'])}"


def _number(value, digits: int) -> str:
    """A number with `digits` decimals, or an interval; ABSENT for None."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_number(bound, digits) for bound in value)}]"
    return ABSENT if value is None else f"{value:.{digits}f}"


def _levels(values: Sequence[float | None] | None) -> str:
    """Shares per level, "0.98 / 0.75"; ABSENT for none."""
    return " / ".join(_number(value, 2) for value in values) if values else ABSENT


def key_values(title: str, values: Mapping) -> Table:
    """A table of two columns: key and value."""

    def text(value) -> str:
        if value is None:
            return ABSENT
        return f"{value:,}" if isinstance(value, int) else str(value)

    return Table(title, ["", "value"], [[key.replace("_", " "), text(value)] for key, value in values.items()])


# Counts over all users: key of the number, key of what it is a part of, and the row's
# name.
_COUNTS = (
    ("hits", "truths", "true items in the list"),
    ("id_hits", "id_truths", "true ids in the list"),
    ("impossible", "truths", "true items that may not be listed"),
    ("id_impossible", "id_truths", "true ids that may not be listed"),
)
_MEASURES = {"recall": "Recall", "ndcg": "NDCG", "id_recall": "Recall of ids", "id_ndcg": "NDCG of ids"}


def _quality(title: str, methods: Mapping[str, Mapping]) -> Table:
    """A column per method and habit, a row per measure and count."""
    entries = {
        f"{name}, {habit}".replace("_", " "): entry
        for name, habits in methods.items()
        for habit, entry in habits.items()
        if habit in HABITS
    }
    measures = list(dict.fromkeys(key for entry in entries.values() for key in entry if "@" in key))

    def cell(entry: Mapping, measure: str) -> str:
        low_high = (entry.get("intervals") or {}).get(measure)
        interval = f" [{low_high[0]:.4f}, {low_high[1]:.4f}]" if low_high else ""
        return _number(entry.get(measure), 4) + interval

    rows = []
    if any("users" in entry for entry in entries.values()):
        rows.append(["users", *(_number(entry.get("users"), 0) for entry in entries.values())])
    for measure in measures:
        name, at, k = measure.partition("@")
        rows.append([_MEASURES.get(name, name) + at + k, *(cell(entry, measure) for entry in entries.values())])
    for part, whole, name in _COUNTS:
        if any(part in entry for entry in entries.values()):
            counts = [f"{entry[part]:,} of {entry[whole]:,}" if part in entry else ABSENT for entry in entries.values()]
            rows.append([name, *counts])
    return Table(title, ["", *entries], rows)


def _identity(row: Mapping) -> list[str]:
    """The cells that say which decoder a row is of."""
    return [
        method_label(row) + (", tuned" if row.get("tuned") else ""),
        str(row["K"]),
        widths_label(row["widths"], row.get("budget")),
        row["score_norm"],
    ]


_IDENTITY_HEADER = ["method", "K", "widths", "norm"]


def calls_table(rows: Sequence[Mapping]) -> Table:
    """Target calls, acceptance, coverage and equality of every row."""
    header = [*_IDENTITY_HEADER, "users", "target calls", "AS@K", "in one call"]
    header += ["acceptance by level", "coverage by level", "mismatched", "near ties", *agreement.columns(rows)]
    cells = [
        [
            *_identity(row),
            _number(row["users"], 0),
            _number(row["target_calls_mean"], 3),
            _number(row["accept_steps_mean"], 3),
            _number(row["one_call_share"], 3),
            _levels(row["acceptance_by_level"]),
            _levels(row["coverage_by_level"]),
            _number(row["mismatched_users"], 0),
            _number(row["near_tie_users"], 0),
            *(agreement.cells(row, ABSENT) if agreement.columns(rows) else ()),
        ]
        for row in rows
    ]
    return Table("Target calls", header, cells)


# Key, column and digits; those of _WHERE_MEASURED are columns only where they were
# measured.
_SPEED = (
    ("latency_ms_p50", "p50 ms", 1),
    ("latency_ms_p95", "p95 ms", 1),
    ("ws_vs_beam_search", "WS@K over beam search", 2),
    ("ws_interval", "95 % interval", 2),
    ("ws_vs_hf_generate", "WS@K over Hugging Face generate", 2),
    ("users_per_s", "users/s", 1),
)
_WHERE_MEASURED = ("ws_interval", "ws_vs_hf_generate")


def speed_table(rows: Sequence[Mapping]) -> Table:
    """Latency, speed-up and throughput of every row."""
    columns = [column for column in _SPEED if any(column[0] in row for row in rows) or column[0] not in _WHERE_MEASURED]
    cells = [[*_identity(row), *(_number(row.get(key), digits) for key, _, digits in columns)] for row in rows]
    return Table("Speed", [*_IDENTITY_HEADER, *(name for _, name, _ in columns)], cells)


def mode_table(rows: Sequence[dict]) -> Table:
    """The measurements of `evaluation.modes`."""
    header = ["method", "mode", "norm", "K", "widths", "users", "target calls", "Recall@K", "NDCG@K", "overlap"]
    header += ["given up", "short", "no item", "mismatched", "near ties", *agreement.columns(rows)]
    header += ["NDCG@K minus its baseline's"]
    cells = []
    for row in rows:
        k, quality, difference = row["K"], row["quality"], row["difference_to_baseline"]
        low, high = difference["intervals"][f"ndcg@{k}"]
        cells.append([
            method_label(row),
            row["mode"] + (f", tolerance {row['tolerance']:g}" if row["tolerance"] else ""),
            row["score_norm"] + ("" if row["constraint"] == "trie" else ", levels"),
            str(k),
            widths_label(row["widths"], row["budget"]),
            str(row["users"]) + (f" x {row['seeds']}" if row["seeds"] > 1 else ""),
            f"{row['target_calls_mean']:.3f}",
            f"{quality[f'recall@{k}']:.4f}",
            f"{quality[f'ndcg@{k}']:.4f}",
            f"{row['overlap_with_exact']:.3f}",
            f"{row['given_up_mean']:.4f}",
            f"{row['short_lists']:.3f}",
            f"{row['places_without_item']:.3f}",
            *("–" if row[name] is None else str(row[name]) for name in ("mismatched_users", "near_tie_users")),
            *(agreement.cells(row, "–") if agreement.columns(rows) else ()),
            f"{difference[f'ndcg@{k}']:+.4f} [{low:+.4f}, {high:+.4f}]",
        ])  # fmt: skip
    return Table("Modes of the decoder", header, cells)


def tune_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The measurements of `tuning.tune`: every setting, the chosen ones marked."""
    header = ["method", "K", "batch", "widths", "gamma", "target calls", "in one call", "ms per batch", "expected"]
    header += ["ratio", "at least", "to the fastest", ""]
    cells = []
    for row in rows:
        for entry in sorted(row["settings"], key=lambda entry: entry["time_ms"]):
            setting, expected = entry["setting"], entry["expected_ms"]
            cells.append([
                method_label(setting),
                str(row["K"]),
                str(row["batch"]),
                widths_label(setting["widths"], setting["budget"]),
                str(setting["gamma"]) if setting["method"] == "speculative" else ABSENT,
                f"{entry['target_calls']:.3f}",
                f"{entry['one_call_share']:.3f}",
                f"{entry['time_ms']:.2f}",
                ABSENT if expected is None else f"{expected:.2f}",
                *(f"{entry[name]:.3f}" for name in ("ratio", "ratio_low")),
                *((f"{1 + row['slower_than_best']:.3f}", "chosen") if entry["label"] == row["choice"] else ("", "")),
            ])  # fmt: skip
    return Table("Tuned decoding", header, cells)
