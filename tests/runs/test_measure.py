import json
import shutil

import pytest

import small
from atspeed_jax.items.titles import TitlesError
from atspeed_jax.runs.pipeline import Run


@pytest.fixture
def copy(small_run, tmp_path):
    """A copy of the finished workdir, to be changed."""
    return shutil.copytree(small_run.workdir, tmp_path / "copy")


def test_an_evaluation_goes_on_where_it_stopped(small_run, small_config, copy, capsys):
    (lost,) = copy.glob("evaluation/*/row_speculative_popularity*.json")
    lost.unlink()
    (copy / "report.json").unlink()
    kept = small.snapshot(copy / "evaluation")
    report = Run(small_config, copy, None).evaluation()
    said = capsys.readouterr().out
    timed = report["decoding"][2]
    assert timed["users_per_s"] > 0
    timed["users_per_s"] = small_run.report["decoding"][2]["users_per_s"]
    assert report["decoding"] == small_run.report["decoding"]
    assert said.count("measuring ") == 1
    assert f"measuring {lost.stem}" in said
    assert small.snapshot(copy / "evaluation").items() >= kept.items()
    assert (copy / "report.json").exists()


@pytest.mark.slow
def test_measurements_with_other_settings_are_neither_read_nor_overwritten(small_run, small_config, copy):
    before = small.snapshot(copy / "evaluation")
    (stored,) = copy.glob("evaluation/*/quality_seen_kept.json")
    other = small.changed(small_config, "evaluate.users", 5)
    report = Run(other, copy, None).evaluation()
    assert {row["users"] for row in report["decoding"]} == {report["quality"]["target"]["seen_kept"]["users"]} == {5}
    after = small.snapshot(copy / "evaluation")
    assert after.items() >= before.items()
    assert len(after) > len(before)
    assert json.loads(stored.read_text())["target"]["users"] > 5


def test_titles_of_items_are_shown_and_faults_in_them_come_before_long_work(small_run, small_config, copy):
    chosen = small_run.report["examples"][0]["list"][0]["item"]
    (copy / "titles.json").write_text(json.dumps({chosen: "Lipstick & <b>"}))
    report = Run(small_config, copy, None).evaluation()
    assert report["examples"][0]["list"][0]["title"] == "Lipstick & <b>"
    assert "Lipstick &amp; &lt;b&gt;" in (copy / "report.html").read_text()
    shutil.rmtree(copy / "evaluation")
    (copy / "titles.json").write_text("{")
    with pytest.raises(TitlesError, match=r"titles\.json"):
        Run(small_config, copy, None).evaluation()
    assert not (copy / "evaluation").exists()
