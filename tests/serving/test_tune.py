import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.reporting.tables import tune_table
from atspeed_jax.serving import tune as T
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.settings import Setting

CONFIG = T.TuneConfig(
    beams=(4,),
    batch_sizes=(2,),
    widths=(("all", 10),),
    drafters=("popularity",),
    budgets=(None,),
    row_shares=(1,),
    batches=3,
    users=4,
    repeats=1,
    samples=50,
    hopeless=1e9,
)


def steady(*values):
    return np.array(values, float)


def test_the_least_mean_time_is_chosen():
    times = {"alone": steady(10, 12, 11), "slow": steady(9, 9, 9), "fast": steady(5, 6, 5), "spiky": steady(4, 4, 20)}
    assert T.fastest_safe(times, "alone", CONFIG) == "fast"


def test_plain_beam_search_where_nothing_is_surely_as_fast():
    slower = {"alone": steady(10, 10, 10), "slow": steady(11, 11, 11)}
    assert T.fastest_safe(slower, "alone", CONFIG) == "alone"
    doubtful = {"alone": steady(10, 10, 10), "lucky": steady(1, 20, 1)}  # less time in all, but not most of the time
    assert doubtful["lucky"].mean() < 10
    assert T.fastest_safe(doubtful, "alone", CONFIG) == "alone"


@pytest.mark.parametrize(
    ("lucky", "choice", "slower", "rounds"),
    [
        ([(10, 10, 10)], "safe", 0.0, 1),  # timed again, it was luck
        ([(5, 5, 5)], "lucky", 0.0, 1),  # or speed
        ([(1, 20, 1)] * T.AGAIN, "safe", 9 / (22 / 3) - 1, T.AGAIN),  # or undecided to the end
    ],
)
def test_a_choice_slower_than_the_fastest_is_timed_again_beside_it(lucky, choice, slower, rounds):
    times = {"alone": steady(10, 10, 10), "slow": steady(9.5, 9.5, 9.5), "safe": steady(9, 9, 9)}
    asked = []

    def time_again(labels):
        asked.append(labels)
        return {label: times[label] for label in labels if label != "lucky"} | {"lucky": steady(*lucky.pop(0))}

    last_times, *found = T.confirmed_choice(times | {"lucky": steady(1, 20, 1)}, "alone", CONFIG, time_again)
    assert found == [choice, pytest.approx(slower)]
    assert asked == rounds * [["alone", "safe", "lucky"]]
    assert set(last_times) == {"alone", "safe", "lucky"}
    assert T.confirmed_choice(times, "alone", CONFIG, time_again)[1:] == ("safe", 0.0)
    assert len(asked) == rounds


def test_ratio_bound():
    alone = np.random.default_rng(0).uniform(5, 9, 40)
    assert T.ratio_bound(alone, alone / 2, CONFIG) == pytest.approx(2)
    noisy = alone / np.random.default_rng(1).uniform(1, 3, 40)
    assert 1 < T.ratio_bound(alone, noisy, CONFIG) < np.median(alone / noisy)


@pytest.fixture(scope="module")
def tuned(small_run, quick_compilation):
    run, said = small_run.run, []
    config = dataclasses.replace(CONFIG, beams=(4, 12), drafters=("draft", "popularity"), budgets=(None, 5))
    rows = T.tune(
        run.decoders(run.draft_params),
        run.dataset,
        run.config.decode,
        config,
        run.config.evaluate.batch_shape(run.config.data.history),
        said.append,
    )
    return rows, said, run


def test_every_setting_that_can_work_is_measured(tuned):
    rows, said, _ = tuned
    assert [(row["K"], row["batch"]) for row in rows] == [(4, 2), (12, 2)]
    assert [len(row["settings"]) for row in rows] == [1 + 2 * 2, 1 + 2]
    assert sum("budget=5: expected at least K=12" in text for text in said) == 2
    assert "raised to what K=12 needs: widths ('all', 10) -> ('all', 12)" in said  # the run's own, instead of none
    for row in rows:
        alone, *others = row["settings"]
        assert alone["label"] == Setting.beam_search(row["K"], "vocab").label
        assert alone["ratio"] == alone["ratio_low"] == 1
        assert alone["target_calls"] == 3
        assert alone["one_call_share"] == 0
        assert all(1 <= other["target_calls"] <= 3 and other["time_ms"] > 0 for other in others)
        assert row["choice"] in [entry["label"] for entry in row["settings"]]
        assert row["slower_than_best"] >= 0
    json.dumps(rows, allow_nan=False)
    table = tune_table(rows)
    assert len(table.rows) == 8
    assert [cells[-1] for cells in table.rows].count("chosen") == 2


def test_the_grid_is_every_combination_that_can_work(small_run):
    run, said = small_run.run, []
    wide = {"widths": (("all", 10), ("all", 4), ("all", "all")), "row_shares": (1, 2, 4)}
    config = dataclasses.replace(CONFIG, **wide, budgets=(None, 5))
    settings = T.grid(config, run.config.decode, run.decoders(None), 5, said.append)
    assert settings[0] == Setting.beam_search(5, "vocab")
    assert len(set(settings)) == len(settings) == 1 + 2 * 3 * 2
    assert len({setting.label for setting in settings}) == len(settings)
    assert len(said) == 3 * 2


def test_a_hopeless_setting_is_timed_once(monkeypatch):
    """Plain beam search is, always, timed in full."""
    seconds = {"alone": 1.0, "near": 0.5, "far": 0.8}
    decoders = SimpleNamespace(build=lambda setting: setting.name)
    settings = {name: Named(name) for name in seconds}
    timed = []

    def latencies(built, batches, *, repeats):
        timed.extend(built)
        return {name: steady(*[1e3 * seconds[name]] * len(batches)) for name in built}

    def decode_users(decode, batches, users):
        return SimpleNamespace(seconds=seconds[decode], calls=np.ones(users))

    monkeypatch.setattr(T, "decode_users", decode_users)
    monkeypatch.setattr(T.timing, "latencies", latencies)
    measured = T._measure(decoders, settings, [{"row": np.arange(2)}] * 2, dataclasses.replace(CONFIG, hopeless=1.5))
    assert timed == ["alone", "near"]
    assert measured["choice"] == "near"
    assert [entry["ratio_low"] for entry in measured["settings"]] == [1, 2, None]
    assert measured["slower_than_best"] == 0
    assert [entry["time_ms"] for entry in measured["settings"]] == [1000, 500, 400]


@dataclasses.dataclass
class Named:
    name: str

    @property
    def row(self):
        return {"name": self.name}


def test_the_choice_is_read_back(tuned, tmp_path):
    rows, _, run = tuned
    for entry in rows[0]["settings"]:
        rows[0]["choice"] = entry["label"]
        (tmp_path / "tuned.json").write_text(json.dumps({"score_norm": "vocab", "rows": rows}))
        setting = T.tuned_setting(tmp_path, 4, 64, "vocab")
        assert setting.label == entry["label"]
        assert isinstance(setting, Setting)
    decode = run.decoders(run.draft_params).build(setting)  # hashable, so that it compiles
    assert decode(prompt_of({"tokens": np.full((1, 13), 1), "valid": np.ones((1, 13), bool)})).ids.shape == (1, 4)


def test_the_nearest_batch_size_counts(tmp_path):
    def row(batch, beams):
        setting = Setting.beam_search(beams, "vocab")
        entry = {"label": setting.label, "setting": setting.row}
        return {"K": 3, "batch": batch, "choice": entry["label"], "settings": [entry]}

    (tmp_path / "tuned.json").write_text(json.dumps({"score_norm": "vocab", "rows": [row(1, 1), row(64, 2)]}))
    assert [T.tuned_setting(tmp_path, 3, batch, "vocab").search.beams for batch in (1, 30, 40, 256)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("content", "beams", "message"),
    [
        (None, 20, "there is no .*tuned.json; make it in the checkout with python -m launch.tune"),
        ({"score_norm": "trie", "rows": []}, 20, "made for score_norm='trie', not 'vocab'"),
        ({"score_norm": "vocab", "rows": [{"K": 5}, {"K": 1}]}, 20, r"no K=20, only \[1, 5\]; tune again"),
    ],
)
def test_a_table_without_what_is_asked_for(content, beams, message, tmp_path):
    if content is not None:
        (tmp_path / "tuned.json").write_text(json.dumps(content))
    with pytest.raises(T.TuneError, match=message):
        T.tuned_setting(tmp_path, beams, 64, "vocab")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": (4, 12, 4)}, r"beams=\(4, 12, 4\): expected one or more entries, each once"),
        ({"beams": ()}, r"beams=\(\): expected one or more entries, each once"),
        ({"drafters": ("none",)}, "drafter 'none'"),
    ],
)
def test_settings_that_cannot_be_tuned(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_parse_widths():
    assert T.parse_widths("all,64,96") == ("all", 64, 96)
    assert T.parse_widths("20") == (20,)
    with pytest.raises(T.TuneError, match="widths 'all;64'"):
        T.parse_widths("all;64")


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "tuned.json").write_text('{"rows": ')
    with pytest.raises(ValueError, match=f"{tmp_path}/tuned.json is damaged .*; delete it and tune again"):
        T.tuned_setting(tmp_path, 20, 1, "vocab")
