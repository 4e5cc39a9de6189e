"""The plot of the suite beside Hugging Face."""

import io

from matplotlib.image import imread

from atspeed_jax.benchmarks import plot


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
