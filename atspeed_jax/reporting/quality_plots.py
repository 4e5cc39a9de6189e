"""The figure of list quality: every method with its interval."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from atspeed_jax.evaluation.quality import HABITS, QUALITY_METHODS
from atspeed_jax.reporting.pictures import Layout, Picture
from atspeed_jax.reporting.plots import legend_below, panels, reach

_MEASURES = {"recall@10": "Recall@10", "ndcg@10": "NDCG@10"}
_LOOKS = {"seen_kept": ("#0072B2", "o"), "seen_removed": ("#E69F00", "s")}


def quality_picture(quality: Mapping) -> Picture | None:
    """Recall and NDCG of every method with 95 % intervals; None without data."""
    if not any(
        _value(quality, method, habit, key) for method in QUALITY_METHODS for habit in HABITS for key in _MEASURES
    ):
        return None

    def draw(layout: Layout) -> Figure:
        figure, axes = panels(len(_MEASURES), layout)
        for axis, (key, label) in zip(axes, _MEASURES.items(), strict=True):
            for shift, habit in zip((-0.1, 0.1), HABITS, strict=True):
                color, marker = _LOOKS[habit]
                values = np.array([_value(quality, method, habit, key) or np.nan for method in QUALITY_METHODS])
                low, high = np.array([_bounds(quality[method][habit], key) for method in QUALITY_METHODS]).T
                around = reach(values, low, high)
                look = {"color": color, "marker": marker, "linestyle": "", "capsize": 3}
                axis.errorbar(np.arange(len(values)) + shift, values, around, label=habit.replace("_", " "), **look)
            axis.set_xticks(range(len(QUALITY_METHODS)), QUALITY_METHODS)
            axis.set(title=label, ylabel=f"{label}, mean over users", xlim=(-0.5, len(QUALITY_METHODS) - 0.5))
            axis.set_ylim(bottom=0)
        legend_below(figure, axes, layout)
        return figure

    spoken = "; ".join(
        f"{method}, {habit.replace('_', ' ')}: "
        + ", ".join(f"{label} {_value(quality, method, habit, key) or 0:.4f}" for key, label in _MEASURES.items())
        for method in QUALITY_METHODS
        for habit in HABITS
    )
    caption = "Quality of the target's lists and of two baselines, with 95 % intervals over users"
    return Picture("quality", caption, f"{caption}. {spoken}.", draw)


def _value(quality: Mapping, method: str, habit: str, key: str) -> float | None:
    return quality[method][habit][key]


def _bounds(entry: Mapping, key: str) -> tuple[float, float]:
    """The interval of a measure; its value twice where that was not measured."""
    value = np.nan if entry[key] is None else entry[key]
    low, high = (entry.get("intervals") or {}).get(key) or (value, value)
    return low, high
