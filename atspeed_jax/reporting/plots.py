"""The plots of a report, drawn without pyplot and its global state."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atspeed_jax.reporting.tables import method_label, widths_label

# Okabe and Ito's palette tells the methods apart for color-blind eyes; widths differ by
# line and marker.
_COLORS = {"beam search": "#666666", "speculative, draft model": "#0072B2", "speculative, popularity prior": "#E69F00"}
OTHER_COLOR = "#009E73"
_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


def draw_plots(rows: Sequence[Mapping], curves: Mapping[str, Sequence[Mapping]]) -> dict[str, tuple[str, bytes]]:
    """Draws every plot that the data allow.

    Args:
      rows: decoding rows of a report.
      curves: see `report.write_report`.

    Returns:
      {file name: (caption, PNG)}.
    """
    figures = {
        "target_calls.png": ("Mean target calls by list length and method", _target_calls(rows)),
        "acceptance.png": ("Acceptance by level", _acceptance(rows)),
        "latency.png": ("Latency at batch 1", _latency(rows)),
        "loss.png": ("Loss curves", _losses(curves)),
    }
    return {name: (caption, png(figure)) for name, (caption, figure) in figures.items() if figure is not None}


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _figure(columns: int, rows: int, width: float = 4.2, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes in the style of all plots."""
    figure = Figure(figsize=(max(6.4, width * columns), height * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


class _Series:
    """Decoding rows grouped by method, widths and, where it varies, score norm; each
    group with its color and line.
    """

    def __init__(self, rows: Sequence[Mapping], key: str):
        measured = [row for row in rows if row.get(key)]
        norms = {row["score_norm"] for row in measured}
        self.ks = sorted({row["K"] for row in measured})
        self.rows: dict[str, dict[int, Mapping]] = {}
        self.style: dict[str, dict] = {}
        used: dict[str, int] = {}
        for row in measured:
            method = method_label(row)
            name = method + (f" ({widths_label(row['widths'], row.get('budget'))})" if row["widths"] else "")
            name += f", {row['score_norm']} norm" if len(norms) > 1 else ""
            if name not in self.rows:
                line, marker = _STYLES[used.setdefault(method, 0) % len(_STYLES)]
                used[method] += 1
                self.style[name] = {"color": _COLORS.get(method, OTHER_COLOR), "linestyle": line, "marker": marker}
            self.rows.setdefault(name, {})[row["K"]] = row


def panels(count: int) -> tuple[Figure, list]:
    """A figure with `count` axes, at most three in a row."""
    columns = min(3, count)
    figure, axes = _figure(columns, -(-count // columns))
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure, axes: Sequence) -> None:
    """Draws one legend for all axes, with each label once."""
    entries = {}
    for axis in axes:
        entries.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)})
    look = {"ncols": 2, "frameon": False, "fontsize": 8, "handlelength": 3.5}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", **look)


def _target_calls(rows: Sequence[Mapping]) -> Figure | None:
    """Mean target calls over list length; None without data."""
    series = _Series(rows, "target_calls_mean")
    if not series.rows:
        return None
    figure, [[axis]] = _figure(1, 1, width=6.4, height=4.4)
    for name, by_k in series.rows.items():
        ks = sorted(by_k)
        positions = [series.ks.index(k) for k in ks]
        axis.plot(positions, [by_k[k]["target_calls_mean"] for k in ks], label=name, **series.style[name])
    axis.set(xlabel="list length K", ylabel="mean target calls per user", ylim=(0.9, None))
    axis.set_xticks(range(len(series.ks)), series.ks)
    axis.axhline(1.0, color="#bbbbbb", linewidth=1, zorder=0)  # the floor: one call for everything
    legend_below(figure, [axis])
    return figure


def _acceptance(rows: Sequence[Mapping]) -> Figure | None:
    """Acceptance over levels, a panel per K; None without data."""
    series = _Series(rows, "acceptance_by_level")
    if not series.rows:
        return None
    figure, axes = panels(len(series.ks))
    for axis, k in zip(axes, series.ks, strict=True):
        shown = {name: by_k[k]["acceptance_by_level"] for name, by_k in series.rows.items() if k in by_k}
        for name, shares in shown.items():
            shares = [np.nan if share is None else share for share in shares]
            axis.plot(range(1, len(shares) + 1), shares, label=name, **series.style[name])
        axis.set(title=f"K = {k}", xlabel="level", ylabel="share with all K drafted", ylim=(-0.03, 1.03))
        axis.set_xticks(range(1, max(map(len, shown.values())) + 1))
    legend_below(figure, axes)
    return figure


def _latency(rows: Sequence[Mapping]) -> Figure | None:
    """Median and 95th percentile of latency, a bar per method; None without data."""
    series = _Series(rows, "latency_ms_p50")
    if not series.rows:
        return None
    figure, [[axis]] = _figure(1, 1, width=6.4, height=4.4)
    bar_width = 0.8 / len(series.rows)
    hatches = dict(zip([line for line, _ in _STYLES], ["", "///", "...", "xxx"], strict=True))
    for number, (name, by_k) in enumerate(series.rows.items()):
        ks = sorted(by_k)
        positions = np.array([series.ks.index(k) for k in ks]) - 0.4 + (number + 0.5) * bar_width
        median = np.array([by_k[k]["latency_ms_p50"] for k in ks])
        high = np.array([by_k[k]["latency_ms_p95"] or by_k[k]["latency_ms_p50"] for k in ks])
        style = series.style[name]
        look = {"color": style["color"], "hatch": hatches[style["linestyle"]], "edgecolor": "white", "linewidth": 0.6}
        axis.bar(positions, median, 0.92 * bar_width, label=name, **look)
        axis.errorbar(positions, median, [0 * median, high - median], fmt="none", ecolor="#333333", capsize=2)
    axis.set(xlabel="list length K", ylabel="milliseconds per user: median, 95th percentile")
    axis.set_xticks(range(len(series.ks)), series.ks)
    legend_below(figure, [axis])
    return figure


_LOSS_COLORS = {"train loss": "#0072B2", "valid loss": "#E69F00"}
_PART_COLORS = ("#56B4E9", "#009E73", "#CC79A7", "#D55E00")
# What the kept step of a run is chosen by, where it is no loss: the first of these that
# was measured.
_CHOSEN_BY = {"target_calls": "target calls", "ndcg@10": "NDCG@10"}


def _losses(curves: Mapping[str, Sequence[Mapping]]) -> Figure | None:
    """A panel per run: training and validation losses and, at the right, what the kept
    step is chosen by.
    """
    drawn = {name: (_lines(records, "loss"), records) for name, records in curves.items()}
    drawn = {name: (lines, records) for name, (lines, records) in drawn.items() if lines}
    if not drawn:
        return None
    figure, axes = panels(len(drawn))
    for axis, (name, (lines, records)) in zip(axes, drawn.items(), strict=True):
        parts = iter(_PART_COLORS)
        for label, (steps, values) in lines.items():
            # An evaluation is a point, and there may be one only; a training curve is a
            # line.
            look = {"linewidth": 1.2} if label.startswith("train") else {"marker": "o", "markersize": 3}
            axis.plot(steps, values, label=label, color=_LOSS_COLORS.get(label) or next(parts), **look)
        axis.set(title=name, xlabel="step", ylabel="loss")
        _chosen_by(axis, records)
        axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _chosen_by(axis, records: Sequence[Mapping]) -> None:
    """Draws the validation figure that a run is chosen by, if it has one, on a second
    scale at the right.
    """
    for key, label in _CHOSEN_BY.items():
        if lines := _lines(records, key):
            [(steps, values)] = lines.values()
            right = axis.twinx()
            look = {"color": "#555555", "linestyle": ":", "marker": "s", "markersize": 3}
            right.plot(steps, values, label=f"valid {label}", **look)
            right.set_ylabel(f"{label} (validation)")
            right.spines["top"].set_visible(False)
            axis.plot([], [], label=f"valid {label} (right)", **look)  # its entry in the one legend
            return


def _lines(records: Sequence[Mapping], part: str) -> dict[str, tuple[list, list]]:
    """ "split metric" -> (steps, values) of every metric with `part` in its name."""
    lines: dict[str, tuple[list, list]] = {}
    for record in records:
        for key, value in record.items():
            if part in key and value is not None:
                steps, values = lines.setdefault(f"{record.get('split', 'train')} {key}", ([], []))
                steps.append(record["step"])
                values.append(value)
    return lines
