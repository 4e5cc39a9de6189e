"""What a run on an accelerator found, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atspeed_jax.accelerator.parts import decode_rows, step_rows
from atspeed_jax.benchmarks.decode import table as decode_table
from atspeed_jax.reporting.tables import ABSENT, Table, as_text
from atspeed_jax.utils.device_time import KINDS

STEP_COLUMNS = ("step", "shape", "rows", "tokens", "ms", "tokens_per_s", "tflops", "mfu", "of_ceiling")


def report(states: Mapping[str, Mapping], out: Path) -> str:
    """Makes the tables of all parts that have rows, and says how each part ended.

    Args:
      states: name of a part -> its state (`accelerator.run`).
      out: directory of the rows.
    """
    decoded, steps = decode_rows(out), step_rows(out)
    texts = [decode_table(decoded)] if decoded else []
    texts += [step_table(steps)] if steps else []
    timed = [(decode_label(row), row) for row in decoded] + [(step_label(row), row) for row in steps]
    timed = [(label, row["device_time"]) for label, row in timed if row["device_time"]]
    texts += [device_table(timed), kernel_table(timed)] if timed else []
    ended = [[name, one["state"], f"{one['seconds']:.0f}", one["error"] or ABSENT] for name, one in states.items()]
    texts.append(as_text(Table("Parts", ["part", "state", "s", "why"], ended)))
    return "\n".join(texts)


def decode_label(row: Mapping[str, Any]) -> str:
    """Names a row of suite decode in a few words."""
    tree = "" if row["method"] == "plain" else f" {','.join(map(str, row['widths']))}"
    tree += "" if row["budget"] is None else f"/{row['budget']}"
    return f"{row['shape']} K={row['K']} batch {row['batch']} {row['method']}{tree}"


def step_label(row: Mapping[str, Any]) -> str:
    """Names a row of a step in a few words."""
    return f"{row['step']} step, {row['shape']}, {row['rows']} rows"


def step_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Makes the table of training and alignment steps."""
    title = f"Steps of a target with the cost of N parameters, {rows[0]['dtype']}, {rows[0]['device']}"
    return as_text(Table(title, STEP_COLUMNS, [[_text(row[name]) for name in STEP_COLUMNS] for row in rows]))


def device_table(timed: Sequence[tuple[str, Mapping]]) -> str:
    """Makes the table that says how long the device is busy, and with what.

    Args:
      timed: (label, fields of a `DeviceTime`) of each row.
    """
    header = ["ms per call", "busy", "from first to last", "kernels", *KINDS]
    rows = [
        [label, *(f"{found[name]:.3f}" for name in ("busy_ms", "span_ms")), f"{found['kernels']:.0f}"]
        + [f"{found['kinds'][kind]:.3f}" for kind in KINDS]
        for label, found in timed
    ]
    return as_text(Table("Where the device's time goes", header, rows))


def kernel_table(timed: Sequence[tuple[str, Mapping]], most: int = 6) -> str:
    """Makes the table of the kernels that take most of a call.

    Args:
      timed: see `device_table`.
      most: names per row.
    """
    rows = [
        [label if place == 0 else "", name, f"{ms:.3f}", f"{count:.1f}"]
        for label, found in timed
        for place, (name, ms, count) in enumerate(found["top"][:most])
    ]
    return as_text(Table("Kernels that take most", ["", "kernel", "ms per call", "launches"], rows))


def _text(value: Any) -> str:
    return ABSENT if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
