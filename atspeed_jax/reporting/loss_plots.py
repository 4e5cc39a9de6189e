"""The figure of training: losses, and what the kept step is chosen by."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from atspeed_jax.reporting.pictures import Layout, Picture
from atspeed_jax.reporting.plots import panels

_LOSS_COLORS = {"train loss": "#0072B2", "valid loss": "#E69F00"}
_PART_COLORS = ("#56B4E9", "#009E73", "#CC79A7", "#D55E00")
# What the kept step of a run is chosen by, where it is no loss: the first of these that
# was measured.
_CHOSEN_BY = {"target_calls": "target calls", "ndcg@10": "NDCG@10"}


def losses(curves: Mapping[str, Sequence[Mapping]]) -> Picture | None:
    """A panel per run: training and validation losses and, at the right, what the kept
    step is chosen by; None without data.

    Args:
      curves: see `report.write_report`.
    """
    drawn = {name: (_lines(records, "loss"), records) for name, records in curves.items()}
    drawn = {name: (lines, records) for name, (lines, records) in drawn.items() if lines}
    if not drawn:
        return None

    def draw(layout: Layout) -> Figure:
        figure, axes = panels(len(drawn), layout)
        for axis, (name, (lines, records)) in zip(axes, drawn.items(), strict=True):
            parts = iter(_PART_COLORS)
            for label, (steps, values) in lines.items():
                # An evaluation is a point, and there may be one only; a training curve
                # is a line.
                look = {"linewidth": 1.2} if label.startswith("train") else {"marker": "o", "markersize": 3}
                axis.plot(steps, values, label=label, color=_LOSS_COLORS.get(label) or next(parts), **look)
            axis.set(title=_title(name), xlabel="step", ylabel="loss")
            _chosen_by(axis, records)
            axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        return figure

    caption = "Loss in training and on validation users (of next items: nats per code), and what chooses the kept step"
    ends = "; ".join(
        f"{_title(name)}: " + ", ".join(f"{label} ends at {values[-1]:.3f}" for label, (_, values) in lines.items())
        for name, (lines, _) in drawn.items()
    )
    return Picture("loss", caption, f"{caption}. {ends}.", draw)


def _title(stage: str) -> str:
    """The name of a stage as readers see it."""
    return stage.replace("_", " ")


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
