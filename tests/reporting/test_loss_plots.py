from atspeed_jax.reporting import loss_plots
from atspeed_jax.reporting.pictures import WIDE


def lines(axis) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.get_lines() if line.get_label()[0] != "_"}


def curve(split: str, steps: int) -> list[dict]:
    return [{"step": step, "split": split, "loss": 1 / step, "grad_norm": 1.0} for step in range(1, steps)]


def test_losses_have_a_panel_for_each_run():
    figure = loss_plots.losses({name: curve("train", 4) for name in "abcd"} | {"none": []}).draw(WIDE)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["a", "b", "c", "d"]
    assert lines(shown[0]) == {"train loss": [1.0, 1 / 2, 1 / 3]}


def test_validation_stands_beside_training():
    target = [*curve("train", 4), {"step": 3, "split": "valid", "loss": 0.5, "ndcg@10": 0.25}]
    draft = curve("train", 3) + [{"step": n, "split": "valid", "target_calls": 2 - n / 4, "ndcg@10": 9} for n in (1, 2)]
    figure = loss_plots.losses({"target": target, "draft_sft": curve("train", 2), "draft": draft}).draw(WIDE)
    by_title = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    right = {axis.get_ylabel(): lines(axis) for axis in figure.axes if not axis.get_title() and axis.get_visible()}
    assert lines(by_title["target"]) == {
        "train loss": [1.0, 1 / 2, 1 / 3],
        "valid loss": [0.5],
        "valid NDCG@10 (right)": [],
    }
    assert list(lines(by_title["draft sft"])) == ["train loss"]
    assert right == {
        "NDCG@10 (validation)": {"valid NDCG@10": [0.25]},
        "target calls (validation)": {"valid target calls": [1.75, 1.5]},
    }
    for title in ("target", "draft"):  # one legend, which names what the right scale shows
        labels = [text.get_text() for text in by_title[title].get_legend().get_texts()]
        assert labels == list(lines(by_title[title]))


def test_loss_lines_are_split_by_split_and_metric():
    records = [*curve("train", 3), {"step": 2, "split": "valid", "loss": None, "kd_loss": 0.5, "seconds": 3}]
    assert loss_plots._lines(records, "loss") == {"train loss": ([1, 2], [1.0, 0.5]), "valid kd_loss": ([2], [0.5])}


def test_no_loss_no_figure():
    assert loss_plots.losses({"target": [], "draft": [{"step": 1, "split": "valid", "recall": 0.5}]}) is None
