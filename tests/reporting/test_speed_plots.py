import numpy as np
import pytest

from atspeed_jax.reporting import speed_plots
from atspeed_jax.reporting.pictures import NARROW, WIDE


def test_latency_shows_what_was_measured(report):
    [axis] = speed_plots.latency(report["decoding"]).draw(WIDE).axes
    bars = {bar.get_label(): list(bar.datavalues) for bar in axis.containers if hasattr(bar, "datavalues")}
    assert bars == {"beam search": [8.25], "speculative, draft model (all, 64, 96)": [8.25, 8.25]}


def test_speed_up_has_its_interval(report):
    report["decoding"][1]["ws_interval"] = [1.0, 1.5]
    picture = speed_plots.speed_up(report["decoding"])
    [axis] = picture.draw(WIDE).axes
    draft, prior = axis.containers
    assert draft.get_label() == "speculative, draft model (all, 64, 96)"
    np.testing.assert_array_equal(draft.lines[0].get_ydata(), [1.25, 1.25])
    (bars,) = draft.lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[1.25, 1.25], [1.0, 1.5]]  # K = 5 has no interval
    assert prior.get_label().startswith("speculative, popularity prior")
    assert "1.25 [1.00, 1.50] at K = 20" in picture.alternative


def test_plain_beam_search_is_a_point_of_the_tuned_line_alone(report):
    rows = report["decoding"]
    series = [bars.get_label() for bars in speed_plots.speed_up(rows).draw(WIDE).axes[0].containers]
    rows[0]["tuned"] = True
    with_tuned = [bars.get_label() for bars in speed_plots.speed_up(rows).draw(WIDE).axes[0].containers]
    assert with_tuned == [*series, "tuned"]
    assert not [name for name in with_tuned if name.startswith("beam search")]


def test_parts_of_the_time_are_stacked(report):
    plain, draft = report["decoding"][:2]
    plain["breakdown_ms"] = {"target": 6.0, "draft": 0.0, "rest": 2.0}
    draft["breakdown_ms"] = {"target": 3.0, "draft": 2.0, "rest": -0.5}
    picture = speed_plots.breakdown(report["decoding"])
    for layout in (WIDE, NARROW):
        [axis] = picture.draw(layout).axes
        target, drafts, rest = axis.containers
        assert list(target.datavalues) == [6.0, 3.0]
        assert [bar.get_x() for bar in drafts] == [6.0, 3.0]
        assert [bar.get_x() for bar in rest] == [6.0, 5.0]
        assert list(rest.datavalues) == [2.0, 0.0]  # below 0 is timing noise
    assert "K = 20, speculative, draft model, widths all, 64, 96: target calls 3.0 ms" in picture.alternative


@pytest.mark.parametrize("picture", [speed_plots.speed_up, speed_plots.latency, speed_plots.breakdown])
def test_nothing_measured_nothing_drawn(picture):
    assert picture([]) is None
