"""The figures of time: speed-up, latency, and where the time goes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atspeed_jax.reporting.headlines import interval, way_in_words
from atspeed_jax.reporting.pictures import Layout, Picture
from atspeed_jax.reporting.plots import STYLES, Series, axes_grid, legend_below, over_k, reach

BASELINE = "plain beam search"
_PARTS = {"target": "#0072B2", "draft": "#E69F00", "rest": "#999999"}
_PART_NAMES = {"target": "target calls", "draft": "draft calls", "rest": "everything else"}


def speed_up(rows: Sequence[Mapping]) -> Picture | None:
    """Speed-up over plain beam search against K, with 95 % intervals; None without
    data.
    """
    series = Series(rows, "ws_vs_beam_search", plain=False)
    if not series.rows:
        return None

    def paint(axis: Axes) -> None:
        for number, (name, by_k) in enumerate(series.rows.items()):
            ks = sorted(by_k)
            # Side by side: intervals of two methods would hide each other.
            positions = np.array([series.ks.index(k) for k in ks]) + 0.06 * (number - (len(series.rows) - 1) / 2)
            ratios = np.array([by_k[k]["ws_vs_beam_search"] for k in ks])
            low, high = np.array([interval(by_k[k]) for k in ks]).T
            axis.errorbar(positions, ratios, reach(ratios, low, high), label=name, capsize=3, **series.style[name])
        axis.axhline(1.0, color="#333333", linewidth=1)
        note = {"textcoords": "offset points", "xytext": (-2, 3), "fontsize": 8, "color": "#333333"}
        axis.annotate(BASELINE, (1, 1), xycoords=("axes fraction", "data"), ha="right", **note)
        axis.set_xlim(-0.5, len(series.ks) - 0.5)
        axis.set_ylim(0, 1.1 * max(1.0, *(interval(row)[1] for by_k in series.rows.values() for row in by_k.values())))

    def text(row: Mapping) -> str:
        low, high = interval(row)
        return f"{row['ws_vs_beam_search']:.2f} [{low:.2f}, {high:.2f}]"

    caption = f"Speed-up over {BASELINE} by list length, one user at a time, with 95 % intervals over users"
    spoken = f"{caption}. {series.in_words(text)}"
    return Picture("speed_up", caption, spoken, over_k(series, paint, f"times as fast as {BASELINE}"))


def latency(rows: Sequence[Mapping]) -> Picture | None:
    """Median and 95th percentile of latency, a bar per method; None without data."""
    series = Series(rows, "latency_ms_p50")
    if not series.rows:
        return None

    def paint(axis: Axes) -> None:
        bar_width = 0.8 / len(series.rows)
        hatches = dict(zip([line for line, _ in STYLES], ["", "///", "...", "xxx"], strict=True))
        for number, (name, by_k) in enumerate(series.rows.items()):
            ks = sorted(by_k)
            positions = np.array([series.ks.index(k) for k in ks]) - 0.4 + (number + 0.5) * bar_width
            median = np.array([by_k[k]["latency_ms_p50"] for k in ks])
            high = np.array([by_k[k]["latency_ms_p95"] or by_k[k]["latency_ms_p50"] for k in ks])
            style = series.style[name]
            look = {"color": style["color"], "hatch": hatches[style["linestyle"]], "edgecolor": "white"}
            axis.bar(positions, median, 0.92 * bar_width, label=name, linewidth=0.6, **look)
            axis.errorbar(positions, median, [0 * median, high - median], fmt="none", ecolor="#333333", capsize=2)

    caption = "Latency of one user at a time: median, and 95th percentile as a whisker"
    spoken = f"{caption}. {series.in_words(lambda row: format(row['latency_ms_p50'], '.1f') + ' ms')}"
    return Picture("latency", caption, spoken, over_k(series, paint, "milliseconds per user: median, 95th percentile"))


def breakdown(rows: Sequence[Mapping]) -> Picture | None:
    """Where the time of a list goes, a bar per row; None without data."""
    measured = [row for row in rows if row.get("breakdown_ms")]
    measured.sort(key=lambda row: row["K"])  # stable: plain beam search stays first
    if not measured:
        return None
    labels = [f"K = {row['K']}, {way_in_words(row)}" for row in measured]

    def draw(layout: Layout) -> Figure:
        wide = layout.columns > 1
        width, bar_height = (1.4 * layout.single, 0.42) if wide else (layout.single, 0.62)
        figure, [[axis]] = axes_grid(1, 1, width=width, height=1.3 + bar_height * len(measured))
        start = np.zeros(len(measured))
        for part, color in _PARTS.items():
            values = np.array([max(0.0, row["breakdown_ms"][part]) for row in measured])
            axis.barh(range(len(measured)), values, 0.7, start, color=color, label=_PART_NAMES[part], edgecolor="white")
            start += values
        if wide:
            axis.set_yticks(range(len(measured)), labels)
        else:  # no room at the left of a phone: the label stands above its bar
            axis.set_yticks([])
            for number, label in enumerate(labels):
                axis.text(0, number - 0.38, label, fontsize=7, va="bottom")
        axis.grid(visible=False, axis="y")
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
        axis.set(xlabel="milliseconds per user", ylim=(len(measured) - 0.5, -0.9))
        legend_below(figure, [axis], layout)
        return figure

    spoken = "; ".join(
        f"{label}: " + ", ".join(f"{_PART_NAMES[part]} {row['breakdown_ms'][part]:.1f} ms" for part in _PARTS)
        for label, row in zip(labels, measured, strict=True)
    )
    caption = "Where the time of one list goes; model calls are timed alone"
    return Picture("breakdown", caption, f"{caption}. {spoken}.", draw)
