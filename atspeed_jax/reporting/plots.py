"""The figures of decoding rows, drawn without pyplot and its global state."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atspeed_jax.reporting.pictures import WIDE, Layout, Picture
from atspeed_jax.reporting.tables import method_label, widths_label

# Okabe and Ito's palette tells the methods apart for color-blind eyes; widths differ by
# line and marker.
_COLORS = {
    "beam search": "#666666",
    "speculative, draft model": "#0072B2",
    "speculative, popularity prior": "#E69F00",
    "tuned": "#D55E00",
}
_NAMES = {"draft": "speculative, draft model", "popularity": "speculative, popularity prior"}
OTHER_COLOR = "#009E73"
STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


def axes_grid(columns: int, rows: int, width: float = 4.2, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes in the style of all figures."""
    figure = Figure(figsize=(width * columns, height * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


class Series:
    """Decoding rows grouped by method, widths and, where it varies, score norm; each
    group with its color and line. Tuned rows are one group, whatever was chosen; plain
    beam search that was chosen is in both.

    Attributes:
      ks: each K, smallest first.
      rows: {name of the group: {K: row}}.
      style: {name of the group: arguments of `Axes.plot`}.
    """

    def __init__(self, rows: Sequence[Mapping], key: str, *, plain: bool = True):
        """Groups the rows that have a figure `key`.

        Args:
          rows: decoding rows of a report.
          key: of the figure.
          plain: whether plain beam search is a group.
        """
        measured = [row for row in rows if row.get(key)]
        tuned = [(row, "tuned") for row in measured if row.get("tuned")]
        others = [
            (row, method_label(row))
            for row in measured
            if (plain if row["method"] == "beam_search" else not row.get("tuned"))
        ]
        norms = {row["score_norm"] for row in measured}
        self.ks = sorted({row["K"] for row, _ in (*others, *tuned)})
        self.rows: dict[str, dict[int, Mapping]] = {}
        self.style: dict[str, dict] = {}
        used: dict[str, int] = {}
        for row, method in (*others, *tuned):
            widths = row["widths"] and method != "tuned"
            name = method + (f" ({widths_label(row['widths'], row.get('budget'))})" if widths else "")
            name += f", {row['score_norm']} norm" if len(norms) > 1 else ""
            if name not in self.rows:
                line, marker = STYLES[used.setdefault(method, 0) % len(STYLES)]
                used[method] += 1
                self.style[name] = {"color": _COLORS.get(method, OTHER_COLOR), "linestyle": line, "marker": marker}
            self.rows.setdefault(name, {})[row["K"]] = row

    def in_words(self, text: Callable[[Mapping], str]) -> str:
        """The figures of all groups as an alternative text.

        Args:
          text: row -> its figure.
        """
        groups = (
            f"{name}: {', '.join(f'{text(by_k[k])} at K = {k}' for k in self.ks if k in by_k)}"
            for name, by_k in self.rows.items()
        )
        return "; ".join(groups) + "."


def panels(count: int, layout: Layout = WIDE) -> tuple[Figure, list]:
    """A figure with `count` axes, at most `layout.columns` in a row."""
    columns = min(layout.columns, count)
    figure, axes = axes_grid(columns, -(-count // columns), width=max(4.2, layout.single / columns))
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def single(layout: Layout):
    """A figure with one axis: (figure, axis)."""
    figure, [[axis]] = axes_grid(1, 1, width=layout.single, height=4.4)
    return figure, axis


def legend_below(figure: Figure, axes: Iterable, layout: Layout = WIDE) -> None:
    """Draws one legend for all axes, with each label once."""
    entries = {}
    for axis in axes:
        entries.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)})
    look = {"ncols": min(2, layout.columns), "frameon": False, "fontsize": 8, "handlelength": 3.5}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", **look)


def over_k(series: Series, paint: Callable[[Axes], None], label: str) -> Callable[[Layout], Figure]:
    """Draws one axis whose ticks are the series' K, with a legend below.

    Args:
      series: what is drawn.
      paint: draws the series on the axis.
      label: of the vertical axis.
    """

    def draw(layout: Layout) -> Figure:
        figure, axis = single(layout)
        paint(axis)
        axis.set(xlabel="list length K", ylabel=label)
        axis.set_xticks(range(len(series.ks)), series.ks)
        legend_below(figure, [axis], layout)
        return figure

    return draw


def reach(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far intervals reach below and above their values, [2, values], as
    `Axes.errorbar` takes it.
    """
    return np.maximum(0, [values - low, high - values])


def target_calls(rows: Sequence[Mapping]) -> Picture | None:
    """Mean target calls over list length; None without data."""
    series = Series(rows, "target_calls_mean")
    if not series.rows:
        return None

    def paint(axis: Axes) -> None:
        for name, by_k in series.rows.items():
            ks = sorted(by_k)
            positions = [series.ks.index(k) for k in ks]
            axis.plot(positions, [by_k[k]["target_calls_mean"] for k in ks], label=name, **series.style[name])
        axis.set_ylim(0.9, None)
        axis.axhline(1.0, color="#bbbbbb", linewidth=1, zorder=0)  # the floor: one call for everything

    caption = "Mean target calls by list length and method"
    spoken = f"{caption}. {series.in_words(lambda row: format(row['target_calls_mean'], '.2f'))}"
    return Picture("target_calls", caption, spoken, over_k(series, paint, "mean target calls per user"))


def calls_by_nodes(curves: Sequence[Mapping]) -> Picture | None:
    """Mean target calls over the nodes that a call reads, a panel per drafter; None
    without data.

    Args:
      curves: {"K", "drafter", "nodes": [int], "target_calls": [float]}, of validation
        users.
    """
    drafters = list(dict.fromkeys(curve["drafter"] for curve in curves))
    if not drafters:
        return None
    ks = sorted({curve["K"] for curve in curves})

    def draw(layout: Layout) -> Figure:
        figure, axes = panels(len(drafters), layout)
        for axis, drafter in zip(axes, drafters, strict=True):
            name = _NAMES.get(drafter) or str(drafter)
            for curve in sorted((one for one in curves if one["drafter"] == drafter), key=lambda one: one["K"]):
                line, marker = STYLES[ks.index(curve["K"]) % len(STYLES)]
                look = {"color": _COLORS.get(name, OTHER_COLOR), "linestyle": line, "marker": marker}
                axis.plot(curve["nodes"], curve["target_calls"], label=f"K = {curve['K']}", markersize=4, **look)
            axis.axhline(1.0, color="#bbbbbb", linewidth=1, zorder=0)  # the floor: one call for everything
            axis.set(title=name, xlabel="drafted nodes read per call", ylabel="mean target calls")
            axis.set_ylim(0.9, None)
        legend_below(figure, axes, layout)
        return figure

    def text(curve: Mapping) -> str:
        points = zip(curve["nodes"], curve["target_calls"], strict=True)
        figures = ", ".join(f"{calls:.2f} with {nodes}" for nodes, calls in points)
        return f"{curve['drafter']}, K = {curve['K']}: {figures}"

    caption = "Target calls by the number of drafted nodes that a call reads, validation users"
    return Picture("calls_by_nodes", caption, f"{caption}. {'; '.join(map(text, curves))}.", draw)


def acceptance(rows: Sequence[Mapping]) -> Picture | None:
    """Acceptance over levels, a panel per K; None without data."""
    series = Series(rows, "acceptance_by_level")
    if not series.rows:
        return None

    def draw(layout: Layout) -> Figure:
        figure, axes = panels(len(series.ks), layout)
        for axis, k in zip(axes, series.ks, strict=True):
            shown = {name: by_k[k]["acceptance_by_level"] for name, by_k in series.rows.items() if k in by_k}
            for name, shares in shown.items():
                shares = [np.nan if share is None else share for share in shares]
                axis.plot(range(1, len(shares) + 1), shares, label=name, **series.style[name])
            axis.set(title=f"K = {k}", xlabel="level", ylabel="share with all K drafted", ylim=(-0.03, 1.03))
            axis.set_xticks(range(1, max(map(len, shown.values())) + 1))
        legend_below(figure, axes, layout)
        return figure

    def shares(row: Mapping) -> str:
        return " / ".join("–" if share is None else f"{share:.2f}" for share in row["acceptance_by_level"])

    caption = "Acceptance by level: the share of users whose K best prefixes were all drafted"
    return Picture("acceptance", caption, f"{caption}. {series.in_words(shares)}", draw)
