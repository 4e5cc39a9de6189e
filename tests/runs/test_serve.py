"""Which decoders and settings a drafter and K stand for; the run is a stand-in."""

import dataclasses
from types import SimpleNamespace

import pytest

from atspeed_jax.runs.serve import decoders_of, setting_of, tuned_calls_by_nodes, tuned_of, tuned_settings
from atspeed_jax.runs.tuning import tuned_for
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.tuning.tune import TuneError
from atspeed_jax.utils.files import write_json

DECODE = DecodeConfig(widths=("all", 10), gamma=2, score_norm="vocab")


class Drafted:
    """Decoders that fit any setting, and keep whose parameters they were made with."""

    def __init__(self, draft_params):
        self.draft_params = draft_params

    def fitted(self, setting, say):
        say(f"fitted {setting.drafter}")
        return setting


@pytest.fixture
def run(tmp_path):
    for name in ("target", "draft"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "metadata.json", {"fingerprint": f"that {name}"})
    serve = SimpleNamespace(decode=DECODE, evaluate=SimpleNamespace(batch_size=8))
    config, dataset = SimpleNamespace(decode=DECODE), SimpleNamespace(catalog=SimpleNamespace(length=3))
    models = {"draft_params": "trained", "decoders": Drafted}
    return SimpleNamespace(workdir=tmp_path, serve=serve, config=config, dataset=dataset, **models)


@pytest.fixture
def tuned(run):
    """A table in which "none" is fastest in batches of 1, and "popularity" of 64."""
    rows = []
    for batch, drafter in ((1, "none"), (64, "popularity")):
        setting = Setting.strict(drafter, 5, DECODE)
        entry = {"label": setting.label, "setting": setting.row}
        curve = {"drafter": drafter, "nodes": [5, batch + 5], "target_calls": [2.0, 1.0]}
        row = {"K": 5, "batch": batch, "choice": setting.label, "settings": [entry]}
        rows.append(row | {"calls_by_nodes": [curve]})
    write_json(run.workdir / "tuned.json", dataclasses.asdict(tuned_for(run)) | {"rows": rows})
    return run


@pytest.mark.parametrize(
    ("drafter", "params"), [("draft", "trained"), ("popularity", None), ("none", None), (None, "trained")]
)
def test_only_the_draft_model_is_loaded_to_draft(run, drafter, params):
    said = []
    decoders, setting = decoders_of(run, drafter, 5, said.append)
    assert decoders.draft_params == params
    assert setting == Setting.strict(drafter or "draft", 5, DECODE)
    assert said == [f"fitted {drafter or 'draft'}"]


@pytest.mark.parametrize(("size", "drafter"), [(None, "none"), (1, "none"), (40, "popularity")])
def test_the_tuned_drafter_is_that_of_the_nearest_batch_size(tuned, size, drafter):
    assert tuned_of(tuned, 5, batch_size=size).drafter == drafter
    assert decoders_of(tuned, "tuned", 5, print, batch_size=size)[1].drafter == drafter


def test_the_choice_is_used_unless_a_drafter_is_asked_for(tuned):
    said, path = [], tuned.workdir / "tuned.json"
    assert setting_of(tuned, 5, said.append, batch_size=1) == Setting.beam_search(5, "vocab")
    assert said == [f"{path}: {Setting.beam_search(5, 'vocab').label}"]
    said.clear()
    assert decoders_of(tuned, None, 5, said.append)[1].drafter == "none"
    assert said[0] == f"tuned for batches of 1, the nearest to 8 in {path}"
    said.clear()
    assert decoders_of(tuned, "draft", 5, said.append)[1] == Setting.strict("draft", 5, DECODE)
    assert said[0] == f"{path} is not used: drafter='draft' is asked for"
    assert tuned_settings(tuned, said.append) == {5: Setting.beam_search(5, "vocab")}


def test_the_curve_of_one_user_at_a_time_is_that_of_the_smallest_batch(tuned, run):
    assert tuned_calls_by_nodes(tuned) == [{"K": 5, "drafter": "none", "nodes": [5, 6], "target_calls": [2.0, 1.0]}]
    (run.workdir / "tuned.json").unlink()
    assert tuned_calls_by_nodes(run) == []


def test_other_settings_k_and_devices_come_before_it_and_say_so(tuned, monkeypatch):
    path, given = tuned.workdir / "tuned.json", dataclasses.replace(DECODE, widths=("all", 20))
    said = []
    assert setting_of(tuned, 6, said.append) == Setting.strict("draft", 6, DECODE)
    assert said.pop() == f"{path} has no K=6, only 5: the draft model drafts, by the settings of the run"
    tuned.serve.decode = dataclasses.replace(DECODE, unroll=not DECODE.unroll)  # the layout in memory decides nothing
    assert setting_of(tuned, 5, print).drafter == "none"
    tuned.serve.decode = given
    assert setting_of(tuned, 5, said.append) == Setting.strict("draft", 5, given)
    assert said.pop() == f"{path} is not used: decode settings are given"
    assert tuned_settings(tuned, said.append) == {}
    tuned.serve.decode = DECODE
    write_json(tuned.workdir / "draft" / "metadata.json", {"fingerprint": "another draft"})
    assert setting_of(tuned, 5, said.append) == Setting.strict("draft", 5, DECODE)
    assert said.pop() == f"{path} is not used: {path} was made for draft='that draft', not 'another draft'"
    with pytest.raises(TuneError, match="was made for draft='that draft'"):
        decoders_of(tuned, "tuned", 5, print)


def test_an_unknown_drafter_is_named_with_the_known_ones(run):
    with pytest.raises(ValueError, match="drafter='best': expected one of 'draft', 'popularity', 'none', 'tuned'"):
        decoders_of(run, "best", 5, print)


def test_what_was_not_tuned_is_refused(tuned):
    with pytest.raises(TuneError, match=r"has no K=6, only .5."):
        decoders_of(tuned, "tuned", 6, print)
