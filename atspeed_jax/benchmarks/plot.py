"""The plot of `benchmarks.generate`."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from atspeed_jax.reporting.plots import OTHER_COLOR, legend_below, panels, png


def speed_up_plot(rows: Sequence[Mapping]) -> bytes:
    """Returns a PNG of how many times faster than `generate` each method is.

    Args:
      rows: of `benchmarks.generate.measure_generate`.
    """
    return png(_speed_ups(rows))


def _speed_ups(rows: Sequence[Mapping]) -> Figure:
    """Draws lines over K, a panel per cell; the work ratio is dotted."""
    cells: dict[tuple, list[Mapping]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["batch"], row["prompt"]), []).append(row)
    figure, axes = panels(len(cells))
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
    legend_below(figure, axes)
    return figure
