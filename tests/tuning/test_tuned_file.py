import dataclasses
import json

import pytest

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.serving.settings import Setting
from atspeed_jax.tuning.tune import TuneError
from atspeed_jax.tuning.tuned_file import TunedFor, Tuning, tuned_setting

HERE = TunedFor("cpu", 1, 2, "vocab", "a target", "a draft")


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
        row(3, batch, Setting("draft", SearchConfig((width,), 1, "vocab", beams=3)))
        for batch, width in ((1, 5), (64, 6))
    ]
    write(tmp_path, rows)
    said = []
    found = [tuned_setting(tmp_path, 3, batch, HERE, said.append).search.widths for batch in (1, 30, 40, 256)]
    assert found == [(5,), (5,), (6,), (6,)]
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
    assert "made for target='unknown', not 'a target'; draft='unknown'" in Tuning.read(tmp_path).unfit(HERE)


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
    for entry in ({"choice": "lost"}, {"settings": [{"label": Setting.beam_search(4, "vocab").label, "setting": {}}]}):
        write(tmp_path, [row(4, 1, Setting.beam_search(4, "vocab")) | entry])
        with pytest.raises(TuneError, match="for K=4; delete it and tune again"):
            tuned_setting(tmp_path, 4, 1, HERE)
