import dataclasses
import json

import pytest

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.serving.settings import Setting
from atspeed_jax.tuning.tune import TuneError
from atspeed_jax.tuning.tuned_file import TunedFor, Tuning, tuned_setting

HERE = TunedFor("cpu", 1, 2, "vocab", 3, "a target", "a draft")


def row(beams, batch, setting):
    entries = [{"label": one.label, "setting": one.row} for one in (Setting.beam_search(beams, "vocab"), setting)]
    return {"K": beams, "batch": batch, "choice": setting.label, "settings": entries}


def write(directory, rows, **made_for):
    table = dataclasses.asdict(HERE) | made_for | {"rows": rows}
    (directory / "tuned.json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    "setting",
    [
        Setting.beam_search(4, "vocab"),
        Setting("draft", SearchConfig((9, 12), 2, "vocab", beams=4)),
        Setting("popularity", SearchConfig((9, 12), 1, "vocab", 11, beams=4)),
    ],
)
def test_the_choice_is_read_back(setting, tmp_path):
    write(tmp_path, [row(4, 1, setting)])
    assert tuned_setting(tmp_path, 4, 1, HERE) == setting
    assert hash(setting)


def test_the_nearest_batch_size_counts_and_is_said(tmp_path):
    rows = [
        row(3, batch, Setting("draft", SearchConfig((width, 9), 1, "vocab", beams=3)))
        for batch, width in ((1, 5), (64, 6))
    ]
    write(tmp_path, rows)
    said = []
    found = [tuned_setting(tmp_path, 3, batch, HERE, said.append).search.widths for batch in (1, 30, 40, 256)]
    assert found == [(5, 9), (5, 9), (6, 9), (6, 9)]
    path = tmp_path / "tuned.json"
    nearest = [(1, 30), (64, 40), (64, 256)]
    assert said == [f"tuned for batches of {had}, the nearest to {asked} in {path}" for had, asked in nearest]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "NVIDIA H200"),
        ("device_count", 8),
        ("cpu_count", 64),
        ("score_norm", "trie"),
        ("id_length", 4),
        ("target", "another target"),
        ("draft", None),
    ],
)
def test_a_choice_for_something_else_is_named_and_not_used(field, value, tmp_path):
    write(tmp_path, [row(4, 1, Setting.beam_search(4, "vocab"))], **{field: value})
    why = Tuning.read(tmp_path).unfit(HERE)
    assert why == f"{tmp_path / 'tuned.json'} was made for {field}={value!r}, not {getattr(HERE, field)!r}"
    with pytest.raises(TuneError, match=f"was made for {field}=.*; tune again in the checkout with"):
        tuned_setting(tmp_path, 4, 1, HERE)


def test_a_file_of_an_older_program_does_not_say_enough(tmp_path):
    old = {"score_norm": "vocab", "environment": {"device": "cpu", "cpu_count": 2, "device_count": 1}, "rows": []}
    (tmp_path / "tuned.json").write_text(json.dumps(old))
    why = Tuning.read(tmp_path).unfit(HERE)
    assert "made for id_length='unknown', not 3; target='unknown', not 'a target'; draft='unknown'" in why


def test_what_is_not_in_the_file_is_named(tmp_path):
    assert Tuning.read(tmp_path) is None
    with pytest.raises(
        TuneError, match=r"there is no .*tuned.json; make it in the checkout with python -m launch.tune"
    ):
        tuned_setting(tmp_path, 20, 64, HERE)
    write(tmp_path, [row(5, 1, Setting.beam_search(5, "vocab")), row(1, 1, Setting.beam_search(1, "vocab"))])
    with pytest.raises(TuneError, match=r"no K=20, only \[1, 5\]; tune again .* --beams=20"):
        tuned_setting(tmp_path, 20, 64, HERE)


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "tuned.json").write_text('{"rows": ')
    with pytest.raises(ValueError, match=f"{tmp_path}/tuned.json is damaged .*; delete it and tune again"):
        tuned_setting(tmp_path, 20, 1, HERE)


GOOD = row(4, 1, Setting("draft", SearchConfig((9, 12), 2, "vocab", beams=4)))


def changed(**fields):
    """GOOD with other fields in the setting that was chosen."""
    entries = [
        entry | {"setting": entry["setting"] | fields} if entry["label"] == GOOD["choice"] else entry
        for entry in GOOD["settings"]
    ]
    return GOOD | {"settings": entries}


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        ("a row", "is 'a row', not an object with K, batch, choice, settings"),
        ({name: GOOD[name] for name in ("batch", "choice", "settings")}, "has K=None, expected int"),
        (GOOD | {"K": "4"}, "has K='4', expected int"),
        (GOOD | {"batch": None}, "has batch=None, expected int"),
        (GOOD | {"settings": None}, "has settings=None, expected list"),
        (GOOD | {"settings": ["a"]}, "which is none of its settings"),
        (GOOD | {"choice": "lost"}, "chose 'lost', which is none of its settings"),
        (GOOD | {"settings": [{"label": GOOD["choice"]}]}, "holds for .* 'setting'"),
        (GOOD | {"settings": [{"label": GOOD["choice"], "setting": {}}]}, "no setting of a decoder"),
        (GOOD | {"settings": [{"label": GOOD["choice"], "setting": []}]}, "no setting of a decoder"),
        (GOOD | {"K": 5}, "of K=5 holds a setting of K=4"),
        (changed(drafter="x"), "drafter='x': expected none, draft, popularity"),
        (changed(method="x"), "holds for .* another setting"),
        (changed(foo=1), "holds for .* another setting"),
        (changed(beams=7), "holds for .* another setting"),
        (changed(widths=[9, 11]), "holds for .* another setting"),
        (row(4, 1, Setting("draft", SearchConfig((9,), 1, "vocab", beams=4))), "holds 1 widths for .*id_length=3"),
    ],
)
def test_a_damaged_row_is_named(damaged, why, tmp_path):
    write(tmp_path, [GOOD, damaged])
    with pytest.raises(TuneError, match=f"{tmp_path}/tuned.json is damaged: row 1 .*{why}.*; delete it and tune again"):
        tuned_setting(tmp_path, 4, 1, HERE)


def test_a_choice_that_may_give_up_beams_is_refused(tmp_path):
    for change in ({"tolerance": 0.5}, {"mode": "coupled"}):
        write(tmp_path, [row(4, 1, Setting("draft", SearchConfig((9, 12), 2, "vocab", beams=4, **change)))])
        with pytest.raises(TuneError, match=r"row 0 holds .*, expected strict mode, no tolerance"):
            tuned_setting(tmp_path, 4, 1, HERE)


def test_a_damaged_environment_is_named(tmp_path):
    write(tmp_path, [GOOD], environment=[])
    with pytest.raises(TuneError, match=r"tuned.json is damaged: environment=\[\]; delete it"):
        Tuning.read(tmp_path)
