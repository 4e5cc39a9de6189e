"""The plot of a sweep."""

import pytest

from atspeed_jax.sweeps import plot
from atspeed_jax.sweeps.plot import sweep_plot


def row(run, calls, **changes):
    made = {"run": run, "K": 20, "mode": "strict", "constraint": "trie", "score_norm": "vocab", "widths": ["all", 96]}
    made |= {"budget": None, "tolerance": 0.0, "temperature": 1.0, "users": 3, "target_calls_mean": calls}
    return made | changes


@pytest.fixture
def drawn(monkeypatch):
    """What the panels hold when the picture is made: lines as label -> (x, y)."""
    found = []

    def png(figure):
        shown = [axis for axis in figure.axes if axis.get_visible()]
        found.extend({line.get_label(): line.get_xydata().tolist() for line in axis.lines} for axis in shown)
        return b"picture"

    monkeypatch.setattr(plot, "png", png)
    return found


def test_the_plot_is_a_picture():
    assert sweep_plot([row("slow", 2.0), row("fast", 1.0, K=5)]).startswith(b"\x89PNG")


def test_a_dot_per_seed_and_a_panel_per_way(drawn):
    assert sweep_plot([row("slow", 2.0), row("slow", 2.5), row("fast", 1.0, K=5)])
    dots = [next(iter(panel.values())) for panel in drawn]
    assert dots == [[[2.0, 0.0], [2.5, 0.0]], [[1.0, 1.0]]]


def test_calls_against_nodes_are_a_line_per_run(drawn):
    """The mean over seeds, by the number of nodes; the whole tree has no number."""
    rows = [row(run, calls, budget=nodes) for run, nodes, calls in (("a", 128, 1.5), ("a", 64, 2.0), ("a", 64, 3.0))]
    assert sweep_plot([*rows, row("b", 1.25, budget=128), row("a", 1.0)])
    [lines] = drawn
    assert (lines["a"], lines["b"]) == ([[64.0, 2.5], [128.0, 1.5]], [[128.0, 1.25]])
