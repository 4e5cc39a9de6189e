"""Which decoders and settings a drafter and K stand for; the run is a stand-in."""

from types import SimpleNamespace

import pytest

from atspeed_jax.runs.serve import decoders_of, tuned_of
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.tune import TuneError
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
    serve = SimpleNamespace(decode=DECODE, evaluate=SimpleNamespace(batch_size=8))
    return SimpleNamespace(workdir=tmp_path, serve=serve, draft_params="trained", decoders=Drafted)


@pytest.fixture
def tuned(run):
    """A table in which "none" is fastest in batches of 1, and "popularity" of 64."""
    rows = []
    for batch, drafter in ((1, "none"), (64, "popularity")):
        setting = Setting.strict(drafter, 5, DECODE)
        rows.append({"K": 5, "batch": batch, "choice": "best", "settings": [{"label": "best", "setting": setting.row}]})
    write_json(run.workdir / "tuned.json", {"score_norm": "vocab", "rows": rows})
    return run


@pytest.mark.parametrize(("drafter", "params"), [("draft", "trained"), ("popularity", None), ("none", None)])
def test_only_the_draft_model_is_loaded_to_draft(run, drafter, params):
    said = []
    decoders, setting = decoders_of(run, drafter, 5, said.append)
    assert decoders.draft_params == params
    assert setting == Setting.strict(drafter, 5, DECODE)
    assert said == [f"fitted {drafter}"]


@pytest.mark.parametrize(("size", "drafter"), [(None, "none"), (1, "none"), (40, "popularity")])
def test_the_tuned_drafter_is_that_of_the_nearest_batch_size(tuned, size, drafter):
    assert tuned_of(tuned, 5, batch_size=size).drafter == drafter
    assert decoders_of(tuned, "tuned", 5, print, batch_size=size)[1].drafter == drafter


def test_an_unknown_drafter_is_named_with_the_known_ones(run):
    with pytest.raises(ValueError, match="drafter='best': expected one of 'draft', 'popularity', 'none', 'tuned'"):
        decoders_of(run, "best", 5, print)


def test_what_was_not_tuned_is_refused(tuned):
    with pytest.raises(TuneError, match=r"has no K=6, only .5."):
        decoders_of(tuned, "tuned", 6, print)
