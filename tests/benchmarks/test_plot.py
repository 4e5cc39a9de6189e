"""The plot of the suite beside Hugging Face."""

import io

from matplotlib.image import imread

from atspeed_jax.benchmarks import plot
from atspeed_jax.reporting.pictures import WIDE


def lines(axis) -> dict[str, list]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.get_lines()}


def test_there_is_a_panel_for_each_cell():
    rows = [
        {
            "model": "4M",
            "batch": batch,
            "prompt": 81,
            "K": k,
            "method": method,
            "ratio_to_hf": ratio * k,
            "work_ratio": k,
        }
        for batch in (1, 8)
        for k in (1, 5)
        for method, ratio in (
            ("hf_generate", 1.0),
            ("hf_generate_trie", 0.9),
            ("beam_search", 2.0),
            ("speculative", 3.0),
            ("beam_search_unrolled", 2.5),
            ("speculative_unrolled", 3.5),
        )
    ]
    one, eight = plot._speed_ups(rows).axes
    assert (one.get_title(), eight.get_title()) == ("4M, batch 1, prompt 81", "4M, batch 8, prompt 81")
    assert lines(eight)["beam search"] == [2.0, 10.0]
    assert lines(eight)["speculative"] == [3.0, 15.0]
    assert lines(eight)["beam search unrolled"] == [2.5, 12.5]
    assert lines(eight)["speculative unrolled"] == [3.5, 17.5]
    assert imread(io.BytesIO(plot.speed_up_plot(rows)), format="png").std() > 0.05


def decode_row(method: str, k: int, ratio: float | None, **changes) -> dict:
    row = {"shape": "10m", "batch": 1, "prompt": 40, "K": k, "mode": "strict", "method": method, "floor_ratio": 1.5}
    return row | {"ratio_to_plain": ratio, "ratio_low": None, "ratio_high": None} | changes


def test_speed_up_and_floor_of_suite_decode():
    rows = [decode_row("plain", 5, 1.0), decode_row("speculative", 5, 1.25, ratio_low=1.0, ratio_high=1.75)]
    rows += [decode_row("speculative", 1, 2.0), decode_row("speculative", 1, None, batch=4)]
    ratios, floor = plot.ratio_pictures(rows)
    (axis,) = ratios.draw(WIDE).axes  # a ratio that is refused is not drawn
    (line,) = axis.containers
    assert line.get_label() == "10m, speculative"
    assert list(line.lines[0].get_ydata()) == [2.0, 1.25]  # K = 1 first
    ends = [segment[:, 1].tolist() for segment in line.lines[2][0].get_segments()]
    assert ends == [[2.0, 2.0], [1.0, 1.75]]
    assert "10m, speculative, batch 1, prompt 40, K = 5: 1.25" in ratios.alternative
    assert [axis.get_title() for axis in floor.draw(WIDE).axes] == ["batch 1, prompt 40", "batch 4, prompt 40"]
    assert plot.ratio_pictures([{"items": 5}]) == []
