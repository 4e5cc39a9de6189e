"""Decides what the report of a run says: `markdown` and `html_page` render it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from atspeed_jax.reporting import agreement, loss_plots, plots, savings, speed_plots, tables
from atspeed_jax.reporting.document import Block, Document, Entry, Listing, Person, Section, Sentences
from atspeed_jax.reporting.headlines import headlines, interval
from atspeed_jax.reporting.quality_plots import quality_picture

HISTORY = 8  # items of an example user that are shown
LISTED = 10  # places of an example user's list that are shown
TERMS = "AS@K: accept steps, levels minus target calls. WS@K: speed-up in wall time at batch 1. –: not measured."


def document(report: Mapping, curves: Mapping[str, Sequence[Mapping]]) -> Document:
    """What a report says.

    Args:
      report, curves: see `report.write_report`; the report is valid.
    """
    rows = report["decoding"]
    parts: dict[str, Sequence[Block | None]] = {
        "Speed": (speed_plots.speed_up(rows), speed_plots.latency(rows), tables.speed_table(rows)),
        "Where the time goes": (_breakdown_words(rows), speed_plots.breakdown(rows)),
        "Target calls": (
            plots.target_calls(rows),
            plots.calls_by_nodes(report.get("calls_by_nodes") or ()),
            plots.acceptance(rows),
            tables.calls_table(rows),
        ),
        "Quality": (quality_picture(report["quality"]), *tables.quality_tables(report["quality"])),
        "Example users": _people(report.get("examples") or ()),
        "Training": (loss_plots.losses(curves),),
        "In words": (Sentences([*in_words(report), TERMS], listed=True),),
        "What was run": _what_was_run(report),
    }
    sections = [Section(title, [block for block in blocks if block is not None]) for title, blocks in parts.items()]
    return Document(
        title=f"Speculative beam search on {report['dataset']['name']}",
        about=_about(report),
        headlines=headlines(rows),
        notes=_notes(rows),
        sections=[section for section in sections if section.blocks],
    )


def in_words(report: Mapping) -> list[str]:
    """Sentences: what each drafter saves and, below float32, whether speculation loses
    anything by it.
    """
    return [*savings.in_words(report["decoding"]), *agreement.in_words(report["decoding"])]


def _about(report: Mapping) -> str:
    """On what data, with which config, on which device."""
    dataset, place = report["dataset"], report["environment"]
    words = [f"{dataset[key]:,} {key}" for key in ("users", "items") if dataset[key] is not None]
    words += [f"config {report['config']}"] if report.get("config") else []
    cores = f", {place['cpu_count']} CPU cores" if place["device"] == "cpu" and place["cpu_count"] else ""
    return " · ".join([*words, f"device {place['device']}{cores}", *_date(report)])


def _date(report: Mapping) -> list[str]:
    written = (report.get("run") or {}).get("written")
    return [str(written).partition(" ")[0]] if written else []


def _notes(rows: Sequence[Mapping]) -> list[str]:
    """What the headlines compare, and how sure they are."""
    timed = [row for row in rows if row.get("ws_vs_beam_search") is not None and row["method"] != "beam_search"]
    notes = [
        "A call is one pass of the target model. Plain beam search, the baseline, needs one call per code of an id. "
        "Speculative beam search gives the same lists with fewer calls."
    ]
    if timed:
        sure = " Intervals are of 95 %, over users." if any(row.get("ws_interval") for row in timed) else ""
        notes.append(f"Times are of one user at a time, both ways measured in turn on this machine.{sure}")
    if any(row.get("tuned") for row in rows):
        notes.append("How to decode was chosen on validation users (tuned); figures are of test users.")
    elif timed and all(interval(row)[0] < 1 for row in timed):
        notes.append(
            "Saved calls become saved time where a pass over many tokens costs little more than a pass over one: with "
            "larger targets, and on accelerators."
        )
    return notes


def _breakdown_words(rows: Sequence[Mapping]) -> Sentences | None:
    """What share of the time is no model call; None where that was not measured."""
    measured = [row for row in rows if row.get("breakdown_ms")]
    if not measured:
        return None
    shares = [(row["breakdown_ms"]["rest"] / max(1e-9, sum(row["breakdown_ms"].values())), row) for row in measured]
    share, row = max(shares, key=lambda pair: pair[0])
    text = (
        "The model calls of a list, timed alone, beside the time of the whole list. Everything else is the search "
        f"(top-K, trie, verification) and the way to and from the device: at most {max(0.0, share):.0%} of the time "
        f"(K = {row['K']}, {tables.method_label(row)})."
    )
    return Sentences([text])


def _people(examples: Sequence[Mapping]) -> list[Person]:
    """The example users of a report.

    Args:
      examples: see `evaluation.examples`.
    """
    return [
        Person(
            name=f"User {example['user']}",
            history=[_entry(item) for item in example["history"][-HISTORY:]],
            recommended=[_entry(item, score=item["score"]) for item in example["list"][:LISTED]],
            later=[_entry(item) for item in example["later"]],
        )
        for example in examples
    ]


def _entry(item: Mapping, score: float | None = None) -> Entry:
    """An item as an example shows it.

    Args:
      item: {"item", "codes"} with, where known, "title" and "found".
      score: of a recommended item.
    """
    title, codes = item.get("title"), "-".join(map(str, item["codes"]))
    details = [f"item {item['item']}"] if title else []
    details += [f"codes {codes}"] + ([] if score is None else [f"score {score:.2f}"])
    return Entry(title or f"item {item['item']}", ", ".join(details), bool(item.get("found")))


def _what_was_run(report: Mapping) -> list[Block]:
    """Command, data, environment, and the config folded away."""
    run = report.get("run") or {}
    blocks: list[Block] = []
    named = {key: value for key, value in run.items() if key != "config" and value is not None}
    if named:
        blocks.append(tables.key_values("Run", named))
    blocks += [tables.key_values("Dataset", report["dataset"]), tables.key_values("Environment", report["environment"])]
    if run.get("config"):
        blocks.append(Listing("The whole config", json.dumps(run["config"], indent=1)))
    return blocks
