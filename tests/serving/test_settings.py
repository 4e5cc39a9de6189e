"""Settings as values: constructors, labels, baselines, and the rows that files hold."""

import dataclasses
import json

import pytest

from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.serving.settings import DecodeConfig, Setting, parse_widths

DECODE = DecodeConfig(widths=("all",), gamma=1, score_norm="vocab", budget=30)


def test_a_drafter_decides_the_method():
    alone, fast = Setting.strict("none", 8, DECODE), Setting.strict("popularity", 8, DECODE)
    assert alone == Setting.beam_search(8, "vocab")
    assert alone.method == "beam_search"
    assert fast.method == "speculative"
    assert fast.search == SearchConfig(("all",), 1, "vocab", 30, beams=8)


def test_settings_say_what_they_are():
    assert Setting.beam_search(20, "vocab") == Setting.beam_search(5, "vocab").searching(beams=20)
    settings = [Setting.beam_search(20, "vocab"), Setting.beam_search(20, "trie"), Setting.beam_search(5, "vocab")]
    for widths, gamma, drafter in ((("all", 64), 3, "draft"), ((6, 464), 3, "draft"), (("all", 64), 1, "popularity")):
        settings.append(Setting.strict(drafter, 20, DecodeConfig(widths, gamma, "vocab")))
        settings.append(Setting.strict(drafter, 20, DecodeConfig(widths, gamma, "vocab", 40)))
    settings += [setting.searching(row_share=share) for setting in settings[3:] for share in (1, 2)]
    settings += [dataclasses.replace(setting, constraint="levels") for setting in settings]
    labels = [setting.label for setting in settings]
    assert len(set(labels)) == len(labels)
    assert labels[0] == "beam_search_none_K20_wnone_g0_vocab"
    assert labels[3] == "speculative_draft_K20_wall-64_g3_vocab"
    assert all(label.replace("_", "").replace("-", "").isalnum() for label in labels)  # they name files


@pytest.mark.parametrize(
    ("mode", "alone"),
    [("strict", "strict"), ("relaxed", "relaxed"), ("coupled", "relaxed"), ("relaxed_reference", "relaxed")],
)
def test_the_baseline_is_the_target_alone(mode, alone):
    temperature = 1.0 if mode == "strict" else 2.0
    tree = dataclasses.replace(DECODE, budget=None)
    setting = Setting.strict("draft", 5, tree).searching(mode=mode, temperature=temperature)
    setting = dataclasses.replace(setting, constraint="levels")
    expected = Setting.beam_search(5, "vocab").searching(mode=alone, temperature=temperature)
    assert setting.baseline == dataclasses.replace(expected, constraint="levels")
    assert setting.baseline.baseline == setting.baseline


FLAT = {"method": "speculative", "drafter": "draft", "beams": 5, "widths": ["all", 64], "gamma": 3}
FLAT |= {"score_norm": "vocab", "mode": "strict", "tolerance": 0.0, "temperature": 1.0, "budget": 40}
FLAT |= {"constraint": "trie", "row_share": 2}


def test_a_row_is_flat_and_gives_the_setting_back():
    setting = Setting.strict("draft", 5, DecodeConfig(("all", 64), 3, "vocab", 40)).searching(row_share=2)
    assert json.loads(json.dumps(setting.row)) == FLAT
    assert Setting.from_row(FLAT) == setting
    alone = Setting.beam_search(5, "vocab")
    assert alone.row["gamma"] == 0
    assert alone.row["widths"] == ()
    assert Setting.from_row(alone.row) == alone


@pytest.mark.parametrize(
    ("change", "names"),
    [({"beams": 0}, "beams=0"), ({"widths": None}, "NoneType"), ({"mode": "best"}, "mode='best'")],
)
def test_a_row_that_is_no_setting_is_refused(change, names):
    with pytest.raises(DecodeError, match=rf"no setting of a decoder: .*{names}"):
        Setting.from_row(FLAT | change)
    with pytest.raises(DecodeError, match=r"no setting of a decoder: KeyError\('drafter'\)"):
        Setting.from_row({name: value for name, value in FLAT.items() if name != "drafter"})


def test_parse_widths():
    assert parse_widths("all,64,96") == ("all", 64, 96)
    assert parse_widths("20") == (20,)
    with pytest.raises(DecodeError, match="widths 'all;64'"):
        parse_widths("all;64")
