from atspeed_jax.reporting import quality_plots
from atspeed_jax.reporting.pictures import WIDE


def test_every_method_and_habit_with_its_interval(report):
    picture = quality_plots.quality_picture(report["quality"])
    recall, ndcg = picture.draw(WIDE).axes
    assert (recall.get_title(), ndcg.get_title()) == ("Recall@10", "NDCG@10")
    kept, removed = recall.containers
    assert list(kept.lines[0].get_ydata()) == [0.0175, 0.0079, 0.0181]
    (bars,) = removed.lines[2]
    ends = [[round(float(end), 6) for end in segment[:, 1]] for segment in bars.get_segments()]
    assert ends == [[0.0145, 0.021], [0.0089, 0.0089], [0.0191, 0.0191]]
    assert "covisitation, seen removed: Recall@10 0.0191, NDCG@10 0.0127" in picture.alternative


def test_nothing_measured_nothing_drawn(report):
    quality = report["quality"]
    for method in ("target", "popularity", "covisitation"):
        quality[method] = {habit: {"recall@10": None, "ndcg@10": None} for habit in ("seen_kept", "seen_removed")}
    assert quality_plots.quality_picture(quality) is None
