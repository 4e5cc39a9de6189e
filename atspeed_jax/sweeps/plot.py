"""The plot of a sweep."""

from collections.abc import Mapping, Sequence

import numpy as np

from atspeed_jax.reporting.pictures import png
from atspeed_jax.reporting.plots import legend_below, panels
from atspeed_jax.reporting.tables import widths_label
from atspeed_jax.sweeps.table import Way, by_way


def sweep_plot(rows: Sequence[Mapping]) -> bytes:
    """Returns a PNG of the mean target calls of each run.

    Every way to decode has a panel with a dot per seed. Ways that differ in the budget
    of nodes alone share a panel: calls against nodes, a line per run.

    Args:
      rows: of sweep.json (`sweep_row`).
    """
    runs = list(dict.fromkeys(row["run"] for row in rows))
    trees: dict[Way, dict[int | None, list[Mapping]]] = {}
    for way, alike in by_way(rows).items():
        trees.setdefault(way._replace(budget=None), {})[way.budget] = alike
    figure, axes = panels(len(trees))
    for axis, (way, of_tree) in zip(axes, trees.items(), strict=True):
        by_nodes = {nodes: of_tree[nodes] for nodes in sorted(nodes for nodes in of_tree if nodes is not None)}
        if len(by_nodes) > 1:
            _against_nodes(axis, runs, by_nodes)
        else:
            _dots(axis, runs, [row for alike in of_tree.values() for row in alike])
        where = f"K = {way.K}, {way.mode_label}, {way.constraint}, {way.score_norm} norm"
        axis.set_title(f"{where}\n{widths_label(way.widths)}", fontsize=8)
    legend_below(figure, axes)
    return png(figure)


def _against_nodes(axis, runs: Sequence[str], by_nodes: Mapping[int, Sequence[Mapping]]) -> None:
    for run in runs:
        calls = {n: [row["target_calls_mean"] for row in alike if row["run"] == run] for n, alike in by_nodes.items()}
        measured = [nodes for nodes, found in calls.items() if found]
        if measured:
            axis.plot(measured, [np.mean(calls[nodes]) for nodes in measured], "o-", markersize=3, label=run)
    axis.set(xlabel="nodes that a target call reads", ylabel="target calls")
    axis.axhline(1.0, color="#bbbbbb", linewidth=1, zorder=0)


def _dots(axis, runs: Sequence[str], rows: Sequence[Mapping]) -> None:
    places = [runs.index(row["run"]) for row in rows]
    axis.plot([row["target_calls_mean"] for row in rows], places, "o", color="#0072B2", alpha=0.7)
    axis.set_yticks(range(len(runs)), runs, fontsize=8)
    axis.set(xlabel="target calls", ylim=(len(runs) - 0.5, -0.5))
    axis.axvline(1.0, color="#bbbbbb", linewidth=1, zorder=0)
