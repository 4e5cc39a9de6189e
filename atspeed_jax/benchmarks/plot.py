"""The figures of benchmark suites."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from atspeed_jax.reporting.pictures import WIDE, Layout, Picture, png
from atspeed_jax.reporting.plots import OTHER_COLOR, STYLES, legend_below, panels, reach

_SHAPE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#666666")
_METHODS = ("speculative", "popularity", "hf", "plain")  # of suite decode, each with its line


class _Figure(NamedTuple):
    """A figure of suite decode.

    Attributes:
      name, caption: of its picture.
      key: of the values.
      bounds: keys of the lower and upper bounds; None for values without an interval.
      label: of the vertical axis.
    """

    name: str
    caption: str
    key: str
    bounds: tuple[str, str] | None
    label: str


def ratio_pictures(rows: Sequence[Mapping]) -> list[Picture]:
    """Speed-up over plain beam search, and time over its floor, against K: a panel per
    batch size and prompt.

    Args:
      rows: of suite decode; rows of other suites give no picture.

    Returns:
      A picture per mode, and one of the floor.
    """
    of_suite = [row for row in rows if row.get("method") in _METHODS and "shape" in row]
    faster = [row for row in of_suite if row.get("ratio_to_plain") is not None and row["method"] != "plain"]
    pictures = []
    for mode in dict.fromkeys(row["mode"] for row in faster):
        caption = f"Mode {mode}: speed-up over plain search of the same mode, with 95 % intervals over batches"
        about = ("ratio_to_plain", ("ratio_low", "ratio_high"), "times as fast as plain")
        pictures.append(_picture(_Figure(f"ratios_{mode}", caption, *about), [r for r in faster if r["mode"] == mode]))
    bounded = [row for row in of_suite if row.get("floor_ratio") is not None and row["mode"] == "strict"]
    if bounded:
        caption = "Time of a list over its floor: what one pass of the target costs at the measured ceilings"
        pictures.append(_picture(_Figure("floor", caption, "floor_ratio", None, "time / floor"), bounded))
    return pictures


def _picture(what: _Figure, rows: Sequence[Mapping]) -> Picture:
    cells: dict[tuple, dict[tuple, list[Mapping]]] = {}
    for row in rows:
        lines = cells.setdefault((row["batch"], row["prompt"]), {})
        lines.setdefault((row["shape"], row["method"]), []).append(row)
    shapes, ks = list(dict.fromkeys(row["shape"] for row in rows)), sorted({row["K"] for row in rows})

    def draw(layout: Layout) -> Figure:
        figure, axes = panels(len(cells), layout)
        for axis, ((batch, prompt), lines) in zip(axes, cells.items(), strict=True):
            for number, ((shape, method), line) in enumerate(lines.items()):
                style, marker = STYLES[_METHODS.index(method)]
                color = _SHAPE_COLORS[shapes.index(shape) % len(_SHAPE_COLORS)]
                look = {"color": color, "linestyle": style, "marker": marker, "capsize": 3}
                ordered = sorted(line, key=lambda row: row["K"])
                # Side by side: intervals of two methods would hide each other.
                places = [ks.index(row["K"]) + 0.05 * (number - (len(lines) - 1) / 2) for row in ordered]
                values = [row[what.key] for row in ordered]
                axis.errorbar(places, values, _around(what, ordered), label=f"{shape}, {method}", **look)
            axis.axhline(1.0, color="#333333", linewidth=1)
            axis.set(title=f"batch {batch}, prompt {prompt}", xlabel="list length K", ylabel=what.label)
            axis.set_ylim(bottom=0)
            axis.set_xticks(range(len(ks)), ks)
        legend_below(figure, axes, layout)
        return figure

    words = "; ".join(
        f"{row['shape']}, {row['method']}, batch {row['batch']}, prompt {row['prompt']}, K = {row['K']}: "
        f"{row[what.key]:.2f}"
        for row in rows
    )
    return Picture(what.name, what.caption, f"{what.caption}. {words}.", draw)


def _around(what: _Figure, rows: Sequence[Mapping]) -> np.ndarray | None:
    """How far the interval of each row reaches below and above its value, [2, rows];
    None where no interval is shown.
    """
    if what.bounds is None:
        return None
    values, low, high = (
        np.array([row[what.key] if row.get(key) is None else row[key] for row in rows], float)
        for key in (what.key, *what.bounds)
    )
    return reach(values, low, high)


def generate_picture(rows: Sequence[Mapping]) -> list[Picture]:
    """How many times faster than `generate` each method is; empty for other suites.

    Args:
      rows: of `benchmarks.generate.measure_generate`.
    """
    if not all("ratio_to_hf" in row for row in rows):
        return []
    caption = "Times faster than Hugging Face generate without a trie"
    words = "; ".join(
        f"{row['model']}, batch {row['batch']}, prompt {row['prompt']}, K = {row['K']}, "
        f"{row['method'].replace('_', ' ')}: {row['ratio_to_hf']:.2f}"
        for row in rows
    )
    return [Picture("generate", caption, f"{caption}. {words}.", lambda layout: _speed_ups(rows, layout))]


def speed_up_plot(rows: Sequence[Mapping]) -> bytes:
    """Returns a PNG of how many times faster than `generate` each method is.

    Args:
      rows: of `benchmarks.generate.measure_generate`.
    """
    return png(_speed_ups(rows))


def _speed_ups(rows: Sequence[Mapping], layout: Layout = WIDE) -> Figure:
    """Draws lines over K, a panel per cell; the work ratio is dotted."""
    cells: dict[tuple, list[Mapping]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["batch"], row["prompt"]), []).append(row)
    figure, axes = panels(len(cells), layout)
    colors = {
        "hf_generate_trie": OTHER_COLOR,
        "beam_search": "#bbbbbb",
        "beam_search_unrolled": "#666666",
        "speculative": "#9ecae1",
        "speculative_unrolled": "#0072B2",
    }
    for axis, ((model, batch, prompt), alike) in zip(axes, cells.items(), strict=True):
        for method, color in colors.items():
            line = [(row["K"], row["ratio_to_hf"]) for row in alike if row["method"] == method]
            axis.plot(*zip(*line, strict=True), "-o", color=color, label=method.replace("_", " "))
        work = sorted({(row["K"], row["work_ratio"]) for row in alike})
        axis.plot(*zip(*work, strict=True), ":", color="black", label="work of generate / work of a shared prompt")
        axis.set(title=f"{model}, batch {batch}, prompt {prompt}", xlabel="K", xscale="log", yscale="log")
    axes[0].set_ylabel("times faster than generate")
    legend_below(figure, axes, layout)
    return figure
