import numpy as np

from atspeed_jax.reporting import plots
from atspeed_jax.reporting.pictures import NARROW, WIDE


def lines(axis) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.get_lines() if line.get_label()[0] != "_"}


def test_target_calls_show_every_method(report):
    [axis] = plots.target_calls(report["decoding"]).draw(WIDE).axes
    assert lines(axis) == {
        "beam search": [4.0],
        "speculative, draft model (all, 64, 96)": [1.0625, 1.375],
        "speculative, popularity prior (all, 64, 96)": [2.0],
    }
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5", "20"]


def test_acceptance_has_a_panel_for_each_list_length(report):
    report["decoding"][1]["acceptance_by_level"] = [1.0, 0.5, None]
    small, large = plots.acceptance(report["decoding"]).draw(WIDE).axes
    assert (small.get_title(), large.get_title()) == ("K = 5", "K = 20")
    assert lines(small) == {"speculative, draft model (all, 64, 96)": [1.0, 0.875, 0.5]}
    draft, popularity = lines(large).values()
    np.testing.assert_array_equal(draft, [1.0, 0.5, np.nan])
    assert popularity == [1.0, 0.875, 0.5]


def test_calls_by_nodes_have_a_panel_per_drafter_and_a_line_per_list_length():
    def curve(drafter, k, calls):
        return {"drafter": drafter, "K": k, "nodes": [20, 40], "target_calls": calls}

    curves = [curve("draft", 20, [2.0, 1.5]), curve("draft", 5, [1.25, 1.0]), curve("popularity", 20, [3.0, 2.5])]
    picture = plots.calls_by_nodes(curves)
    draft, popularity = picture.draw(WIDE).axes
    assert lines(draft) == {"K = 5": [1.25, 1.0], "K = 20": [2.0, 1.5]}
    assert lines(popularity) == {"K = 20": [3.0, 2.5]}
    assert "popularity, K = 20: 3.00 with 20, 2.50 with 40" in picture.alternative
    assert plots.calls_by_nodes([]) is None


def test_a_phone_gets_its_panels_one_below_another(report):
    wide, narrow = (plots.acceptance(report["decoding"]).draw(layout) for layout in (WIDE, NARROW))
    assert narrow.get_figwidth() < wide.get_figwidth()
    left, right = (axis.get_position() for axis in wide.axes)
    above, below = (axis.get_position() for axis in narrow.axes)
    assert left.y0 == right.y0
    assert above.y0 > below.y1


def test_the_alternative_text_has_the_figures(report):
    text = plots.target_calls(report["decoding"]).alternative
    assert "speculative, draft model (all, 64, 96): 1.06 at K = 5, 1.38 at K = 20" in text
    report["decoding"][1]["acceptance_by_level"] = [1.0, 0.5, None]
    assert "1.00 / 0.50 / – at K = 20" in plots.acceptance(report["decoding"]).alternative


def test_tuned_rows_are_one_line_whatever_was_chosen(report):
    rows = report["decoding"]
    tuned = [{**rows[0], "tuned": True, "K": 1}, {**rows[1], "tuned": True}]
    groups = plots.Series([*rows, *tuned], "target_calls_mean").rows
    assert sorted(groups["tuned"]) == [1, 20]
    assert sorted(groups["beam search"]) == [1, 20]  # plain beam search that was chosen is no less plain


def test_nothing_measured_nothing_drawn():
    assert plots.target_calls([]) is None
    assert plots.acceptance([]) is None


def test_widths_and_norms_get_series_of_their_own(report):
    rows = report["decoding"]
    wide = {**rows[1], "widths": ["all", 96, 128]}
    series = plots.Series([*rows, wide], "target_calls_mean")
    names = ["speculative, draft model (all, 64, 96)", "speculative, draft model (all, 96, 128)"]
    assert all(name in series.rows for name in names)
    first, second = (series.style[name] for name in names)
    assert first["color"] == second["color"]
    assert first["linestyle"] != second["linestyle"]
    trie = plots.Series([*rows, {**rows[1], "score_norm": "trie"}], "target_calls_mean")
    assert "speculative, draft model (all, 64, 96), trie norm" in trie.rows
