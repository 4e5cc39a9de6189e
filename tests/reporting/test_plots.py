import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from atspeed_jax.reporting import plots


def lines(axis) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.get_lines() if line.get_label()[0] != "_"}


def curve(split: str, steps: int) -> list[dict]:
    return [{"step": step, "split": split, "loss": 1 / step, "grad_norm": 1.0} for step in range(1, steps)]


def test_every_plot_is_a_png(report):
    drawn = plots.draw_plots(report["decoding"], {"target": curve("train", 9) + curve("valid", 3)})
    assert list(drawn) == ["target_calls.png", "acceptance.png", "latency.png", "loss.png"]
    for _, png in drawn.values():
        image = imread(io.BytesIO(png), format="png")
        assert image.shape[0] > 300
        assert image.shape[1] > 600
        assert image.std() > 0.05


def test_target_calls_show_every_method(report):
    [axis] = plots._target_calls(report["decoding"]).axes
    assert lines(axis) == {
        "beam search": [4.0],
        "speculative, draft model (all, 64, 96)": [1.0625, 1.375],
        "speculative, popularity prior (all, 64, 96)": [2.0],
    }
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5", "20"]


def test_acceptance_has_a_panel_for_each_list_length(report):
    report["decoding"][1]["acceptance_by_level"] = [1.0, 0.5, None]
    small, large = plots._acceptance(report["decoding"]).axes
    assert (small.get_title(), large.get_title()) == ("K = 5", "K = 20")
    assert lines(small) == {"speculative, draft model (all, 64, 96)": [1.0, 0.875, 0.5]}
    draft, popularity = lines(large).values()
    np.testing.assert_array_equal(draft, [1.0, 0.5, np.nan])
    assert popularity == [1.0, 0.875, 0.5]


def test_latency_shows_what_was_measured(report):
    [axis] = plots._latency(report["decoding"]).axes
    bars = {bar.get_label(): list(bar.datavalues) for bar in axis.containers if hasattr(bar, "datavalues")}
    assert bars == {"beam search": [8.25], "speculative, draft model (all, 64, 96)": [8.25, 8.25]}


def test_losses_have_a_panel_for_each_run():
    figure = plots._losses({name: curve("train", 4) for name in "abcd"} | {"none": []})
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["a", "b", "c", "d"]
    assert lines(shown[0]) == {"train loss": [1.0, 1 / 2, 1 / 3]}


def test_validation_stands_beside_training():
    target = [*curve("train", 4), {"step": 3, "split": "valid", "loss": 0.5, "ndcg@10": 0.25}]
    draft = curve("train", 3) + [{"step": n, "split": "valid", "target_calls": 2 - n / 4, "ndcg@10": 9} for n in (1, 2)]
    figure = plots._losses({"target": target, "draft_sft": curve("train", 2), "draft": draft})
    by_title = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    right = {axis.get_ylabel(): lines(axis) for axis in figure.axes if not axis.get_title() and axis.get_visible()}
    assert lines(by_title["target"]) == {
        "train loss": [1.0, 1 / 2, 1 / 3],
        "valid loss": [0.5],
        "valid NDCG@10 (right)": [],
    }
    assert list(lines(by_title["draft_sft"])) == ["train loss"]
    assert right == {
        "NDCG@10 (validation)": {"valid NDCG@10": [0.25]},
        "target calls (validation)": {"valid target calls": [1.75, 1.5]},
    }
    for title in ("target", "draft"):  # one legend, which names what the right scale shows
        labels = [text.get_text() for text in by_title[title].get_legend().get_texts()]
        assert labels == list(lines(by_title[title]))


def test_nothing_measured_nothing_drawn():
    assert plots.draw_plots([], {"target": [], "draft": [{"step": 1, "split": "valid", "recall": 0.5}]}) == {}


def test_drawing_is_deterministic(report):
    curves = {"target": curve("train", 9)}
    assert plots.draw_plots(report["decoding"], curves) == plots.draw_plots(report["decoding"], curves)


def test_loss_lines_are_split_by_split_and_metric():
    records = [*curve("train", 3), {"step": 2, "split": "valid", "loss": None, "kd_loss": 0.5, "seconds": 3}]
    assert plots._lines(records, "loss") == {"train loss": ([1, 2], [1.0, 0.5]), "valid kd_loss": ([2], [0.5])}


def test_widths_and_norms_get_series_of_their_own(report):
    rows = report["decoding"]
    wide = {**rows[1], "widths": ["all", 96, 128]}
    series = plots._Series([*rows, wide], "target_calls_mean")
    names = ["speculative, draft model (all, 64, 96)", "speculative, draft model (all, 96, 128)"]
    assert all(name in series.rows for name in names)
    first, second = (series.style[name] for name in names)
    assert first["color"] == second["color"]
    assert first["linestyle"] != second["linestyle"]
    trie = plots._Series([*rows, {**rows[1], "score_norm": "trie"}], "target_calls_mean")
    assert "speculative, draft model (all, 64, 96), trie norm" in trie.rows


def test_pyplot_is_left_alone():
    program = (
        "import sys\n"
        "from atspeed_jax.reporting.plots import draw_plots\n"
        "assert draw_plots([], {'a': [{'step': 1, 'loss': 1.0}]})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).resolve().parents[2])
