"""The report of a whole run: report.json for programs, report.html and report.md for
people.

    report = {
      "dataset":     {"name", "users", "items", "distinct_ids", "collisions"},
      "quality":     {"target": habits, "popularity": habits, "covisitation": habits,
                      "target_fingerprint": str},
      "decoding":    [row, ...],            # keys in DECODING_KEYS
      "environment": {"jax", "device", "cpu_count", "git"},
    }

habits is {"seen_kept": entry, "seen_removed": entry}. An entry is what quality.measure
returns: {"recall@10": mean, "ndcg@10": mean, ..., "intervals": {...}, ...}.
quality["differences"] may hold entries of metrics.compare in the same form, by name.
A value that was not measured is None. Further keys are welcome everywhere. These are
shown where a report has them: of a row "tuned" (true for the choice of a tuner),
"ws_interval" [low, high] and "breakdown_ms" (`evaluation.breakdown`); of the report
"examples" (`evaluation.examples`), "calls_by_nodes" (`plots.calls_by_nodes`), and
"run", what `environment.what_was_run` gives and "config".
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from atspeed_jax.evaluation.quality import HABITS, QUALITY_METHODS
from atspeed_jax.reporting import contents, html_page, markdown
from atspeed_jax.reporting.headlines import headlines
from atspeed_jax.reporting.tables import as_text, report_tables
from atspeed_jax.utils.files import read_json, write_bytes, write_json, write_text

DATASET_KEYS = ("name", "users", "items", "distinct_ids", "collisions")
QUALITY_KEYS = ("recall@10", "ndcg@10")
DECODING_KEYS = (
    "method",
    "drafter",
    "mode",
    "score_norm",
    "K",
    "widths",
    "users",
    "target_calls_mean",
    "accept_steps_mean",
    "one_call_share",
    "acceptance_by_level",
    "coverage_by_level",
    "mismatched_users",
    "near_tie_users",
    "latency_ms_p50",
    "latency_ms_p95",
    "ws_vs_beam_search",
    "users_per_s",
    "target_fingerprint",
)
ENVIRONMENT_KEYS = ("jax", "device", "cpu_count", "git")
METHODS = ("beam_search", "speculative")
DRAFTERS = ("none", "draft", "popularity")
LISTS = ("widths", "acceptance_by_level", "coverage_by_level")


class ReportError(ValueError):
    """A report that lacks a key or holds a value of the wrong kind."""


def write_report(directory: Path, report: Mapping, curves: Mapping[str, Sequence[Mapping]]) -> None:
    """Writes report.json, report.html, report.md and the plots of report.md; each file
    appears whole or not at all.

    Args:
      directory: is made if absent.
      report: see the head of this file.
      curves: per training run its metric records, {"step": int, "split": "train" or
        "valid", "loss": float, ...}; keys with "loss" in them are drawn.

    Raises:
      ReportError: as `validate_report`, before anything is written.
    """
    report = to_builtin(report)
    validate_report(report)
    directory, document = Path(directory), contents.document(report, curves)
    files = {f"{picture.name}.png": picture.png() for picture in markdown.pictures(document)}
    page, text = html_page.render(document), markdown.render(document)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(directory / name, content)
    write_text(directory / "report.md", text)
    write_text(directory / "report.html", page)
    write_json(directory / "report.json", report)  # last: its presence means that the report is complete


def read_report(directory: Path) -> dict:
    """Reads the report of a run.

    Raises:
      ReportError: no report, or as `validate_report`.
      ValueError: a damaged file.
    """
    path = Path(directory) / "report.json"
    if not path.is_file():
        raise ReportError(f"there is no {path}; make it in the checkout with python -m launch.evaluate")
    report = read_json(
        path, "make it again in the checkout with python -m launch.evaluate, which measures nothing twice"
    )
    validate_report(report)
    return report


def format_table(report: Mapping) -> str:
    """The headlines, the tables, and what follows from them (`contents.in_words`), as
    text for a terminal.

    Raises:
      ReportError: as `validate_report`.
    """
    report = to_builtin(report)
    validate_report(report)
    tables = (as_text(table) for table in report_tables(report))
    sentences = [*contents.in_words(report), *(one.sentence for one in headlines(report["decoding"]))]
    return "\n".join([*tables, *(textwrap.fill(sentence, 118) for sentence in sentences)])


def validate_report(report: Mapping) -> None:
    """Checks that a report can be written and read.

    Raises:
      ReportError: a key that is missing or holds something unusable; it names the first
        one.
    """
    _need(report, "report", ("dataset", "quality", "decoding", "environment"))
    _need(report["dataset"], "report.dataset", DATASET_KEYS)
    _need(report["environment"], "report.environment", ENVIRONMENT_KEYS)
    quality = report["quality"]
    _need(quality, "report.quality", (*QUALITY_METHODS, "target_fingerprint"))
    for method in QUALITY_METHODS:
        _need(quality[method], f"report.quality.{method}", HABITS)
        for habit in HABITS:
            _need(quality[method][habit], f"report.quality.{method}.{habit}", QUALITY_KEYS)
    if not isinstance(report["decoding"], list | tuple):
        raise ReportError(f"report.decoding is {report['decoding']!r}, expected a list of rows")
    for number, row in enumerate(report["decoding"]):
        _check_row(row, f"report.decoding[{number}]")
    _check_finite(report, "report")


def _need(value, path: str, keys: Sequence[str]) -> None:
    """Raises ReportError unless `value` is a mapping with these keys. path: of the
    value, in the message.
    """
    if not isinstance(value, Mapping):
        raise ReportError(f"{path} is {value!r}, expected a dict with {', '.join(keys)}")
    for key in keys:
        if key not in value:
            raise ReportError(f"{path} lacks {key!r}; give it, as None if it was not measured")


def _check_row(row, path: str) -> None:
    """Raises ReportError for a decoding row that cannot be shown."""
    _need(row, path, DECODING_KEYS)
    for key, allowed in (("method", METHODS), ("drafter", DRAFTERS)):
        if row[key] not in allowed:
            raise ReportError(f"{path}.{key} is {row[key]!r}, expected one of {', '.join(allowed)}")
    if not isinstance(row["K"], int) or row["K"] < 1:
        raise ReportError(f"{path}.K is {row['K']!r}, expected a whole number of at least 1")
    for key in LISTS:
        if not isinstance(row[key], list | tuple | None):
            raise ReportError(f"{path}.{key} is {row[key]!r}, expected a list or None")


def _check_finite(value, path: str) -> None:
    """Raises ReportError for a number that is not finite, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_finite(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_finite(inner, f"{path}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ReportError(f"{path} is {value}, expected a finite number, or None if it was not measured")


def to_builtin(value) -> Any:
    """The value in built-in types.

    NumPy and JAX scalars and arrays become numbers and lists, tuples lists, and keys
    text.
    """
    if isinstance(value, Mapping):
        return {str(key): to_builtin(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_builtin(inner) for inner in value]
    return np.asarray(value).tolist() if isinstance(value, np.generic | np.ndarray | jax.Array) else value
