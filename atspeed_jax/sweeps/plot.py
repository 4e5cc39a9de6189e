"""The plot of a sweep."""

from collections.abc import Mapping, Sequence

from atspeed_jax.reporting.pictures import png
from atspeed_jax.reporting.plots import panels
from atspeed_jax.reporting.tables import widths_label
from atspeed_jax.sweeps.table import by_way


def sweep_plot(rows: Sequence[Mapping]) -> bytes:
    """Returns a PNG of the mean target calls of each run, with a dot per seed.

    Args:
      rows: of sweep.json (`sweep_row`). Every way to decode has a panel.
    """
    ways = by_way(rows)
    figure, axes = panels(len(ways))
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for axis, ((k, mode, constraint, norm, widths, _), alike) in zip(axes, ways.items(), strict=True):
        places = [runs.index(row["run"]) for row in alike]
        axis.plot([row["target_calls_mean"] for row in alike], places, "o", color="#0072B2", alpha=0.7)
        axis.set_title(f"K = {k}, {mode}, {constraint}, {norm} norm\n{widths_label(widths)}", fontsize=8)
        axis.set_yticks(range(len(runs)), runs, fontsize=8)
        axis.set(xlabel="target calls", ylim=(len(runs) - 0.5, -0.5))
        axis.axvline(1.0, color="#bbbbbb", linewidth=1, zorder=0)
    return png(figure)
