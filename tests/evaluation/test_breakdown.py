"""Which calls of a list are whose, and what is left for everything else."""

import dataclasses

import pytest

from atspeed_jax.evaluation import breakdown as module
from atspeed_jax.serving import model_calls
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.settings import DecodeConfig, Setting

DECODE = DecodeConfig(widths=(3,), gamma=1, score_norm="vocab")
PLAIN, DRAFT = Setting.beam_search(2, "vocab"), Setting.strict("draft", 2, DECODE)


@pytest.fixture
def decoders(two_models):
    return two_models.decoders


TARGET, ONE = {"target": 4000, "draft": 0, "rest": 3000}, {"target": 2000, "draft": 500, "rest": 4500}
TWO = {"target": 4000, "draft": 500, "rest": 2500}


@pytest.mark.parametrize(("setting", "expected"), [(PLAIN, {2: TARGET}), (DRAFT, {1: ONE, 2: TWO})])
def test_parts_by_hand(decoders, toy_batches, setting, expected, monkeypatch):
    """Every list takes 7 seconds, a call of the target alone 2, one of the draft 0.5."""
    monkeypatch.setattr(model_calls, "run_once", lambda *_: 7.0)
    seconds = {decoders.target: 2.0, decoders.draft: 0.5}
    monkeypatch.setattr(model_calls, "timed_call", lambda call, params: lambda: seconds[call.config])
    for batch in toy_batches:
        made = int(decoders.build(setting)(prompt_of(batch)).rounds)
        assert module.breakdown(decoders, setting, [batch], repeats=1) == pytest.approx(expected[made])


def test_plain_beam_search_and_the_first_speculation():
    prior = dataclasses.replace(DRAFT, drafter="popularity")
    wide = DRAFT.searching(widths=(4,))
    assert module.chosen_settings([PLAIN, wide, prior, DRAFT]) == [PLAIN, wide]
    assert module.chosen_settings([PLAIN]) == [PLAIN]


def test_a_draft_like_its_target_cannot_be_told_from_it(decoders):
    assert module.can_break_down(decoders)
    assert not module.can_break_down(dataclasses.replace(decoders, draft=decoders.target))
