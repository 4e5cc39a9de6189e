"""Who is measured, with what, and the arithmetic of the report's rows; the decoding itself is tested elsewhere."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.evaluation import evaluate as module
from atspeed_jax.items.catalog import BOS
from atspeed_jax.serving.settings import Setting
from evaluations import DECODE, FLOAT32, decoded_lists, make_evaluation


def test_prompts_keep_the_newest_items_and_may_be_empty(toy, tmp_path):
    evaluation = make_evaluation(toy, tmp_path)
    prompts = {}
    for batch in evaluation.everyone.batches(evaluation.dataset, BatchShape(4, evaluation.config.buckets, 2)):
        assert batch["tokens"].shape in ((2, 1 + 2), (2, 1 + 2 * 4))
        for row, tokens, valid in zip(batch["row"], batch["tokens"], batch["valid"], strict=True):
            if row >= 0:
                prompts[int(row)] = tokens[valid].tolist()
    newest = toy.catalog.tokens([2, 3, 6, 4]).reshape(-1).tolist()
    assert prompts[0] == [BOS, *newest]
    assert prompts[1] == prompts[3] == [BOS]
    assert sorted(prompts) == [0, 1, 2, 3, 4]


def test_fewer_users_have_the_longest_prompts_alone(toy, tmp_path):
    evaluation = make_evaluation(toy, tmp_path)
    shapes = {
        users: {batch["tokens"].shape for batch in evaluation.batches(getattr(evaluation, users))}
        for users in ("everyone", "some")
    }
    assert shapes == {"everyone": {(2, 3), (2, 9)}, "some": {(2, 9)}}
    single = evaluation.batches(evaluation.everyone.sample(9, 0), batch_size=1)
    assert [batch["tokens"].shape for batch in single] == [(1, 9)] * 5


@pytest.mark.parametrize("full", [False, True])
def test_settings_cover_the_grid_once(toy, tmp_path, full):
    evaluation = make_evaluation(toy, tmp_path, decoders=toy.decoders)
    rows = [(setting, len(users.users)) for setting, users in evaluation.settings(full)]
    some = 5 if full else 2
    expected = []
    for beams in (5, 2, 3):
        everyone = 5 if beams != 3 else some
        expected.append((Setting.beam_search(beams, "vocab"), everyone))
        for widths in (("all",), (3,)):
            for drafter in ("draft", "popularity"):
                setting = Setting.strict(drafter, beams, dataclasses.replace(DECODE, widths=widths))
                expected.append((setting, everyone if widths == ("all",) else some))
    assert rows == expected
    assert len(set(rows)) == 15


@pytest.mark.parametrize("beside", [True, False])
def test_a_tuned_k_may_be_measured_as_tuned_alone(toy, tmp_path, beside):
    evaluation = make_evaluation(toy, tmp_path, decoders=toy.decoders)
    evaluation.config = dataclasses.replace(evaluation.config, beside_tuned=beside)
    tuned = Setting.strict("draft", 5, dataclasses.replace(DECODE, widths=(6,)))
    evaluation.tuned = {5: tuned, 2: Setting.beam_search(2, "vocab")}
    rows = [setting for setting, _ in evaluation.settings(False)]
    assert [row for row in rows if row.search.beams == 5][:2] == [Setting.beam_search(5, "vocab"), tuned]
    count = {beams: sum(row.search.beams == beams for row in rows) for beams in (5, 2)}
    assert count == {5: 6 if beside else 2, 2: 5}


@pytest.fixture
def three_levels(toy):
    """The toy catalog with an id length of three, to count with."""
    return SimpleNamespace(catalog=SimpleNamespace(length=3, items=7))


def test_a_row_by_hand(toy, three_levels, tmp_path, monkeypatch):
    evaluation = make_evaluation(toy, tmp_path, decoders=FLOAT32)
    evaluation.dataset = three_levels
    users = SimpleNamespace(users=np.arange(4))
    plain_lists = decoded_lists(calls=np.full(4, 3), reached=None, accepted=None, coverage=None)
    setting = Setting.strict("draft", 2, DECODE)
    monkeypatch.setattr(evaluation, "batches", lambda users: "batches")
    monkeypatch.setattr(
        evaluation,
        "decoded",
        lambda setting, users, **_: decoded_lists() if setting.drafter == "draft" else plain_lists,
    )
    compared = []
    monkeypatch.setattr(module, "count_differences", lambda *arguments: compared.append(arguments) or (1, 2))
    row = evaluation.row(setting, users)
    assert row == {
        "method": "speculative",
        "drafter": "draft",
        "mode": "strict",
        "score_norm": "vocab",
        "K": 2,
        "widths": ["all"],
        "budget": None,
        "users": 4,
        "target_calls_mean": 7 / 4,
        "accept_steps_mean": 3 - 7 / 4,
        "one_call_share": 0.5,
        "acceptance_by_level": [3 / 4, 2 / 3],
        "coverage_by_level": [3.25 / 4, 2.5 / 3],  # of the users who came to the level
        "mismatched_users": 1,
        "near_tie_users": 2,
        "batch_rounds_mean": 2.5,
        "users_per_s": 16.0,
        "target_fingerprint": "t1",
    }
    (arguments,) = compared
    assert arguments[1:3] == (setting, Setting.beam_search(2, "vocab"))
    assert arguments[4] is plain_lists

    baseline = evaluation.row(Setting.beam_search(2, "vocab"), users)
    assert baseline["acceptance_by_level"] is baseline["coverage_by_level"] is None
    assert (baseline["target_calls_mean"], baseline["accept_steps_mean"], baseline["widths"]) == (3, 0, [])


def test_a_level_nobody_reached_has_no_share(toy, three_levels, tmp_path, monkeypatch):
    evaluation = make_evaluation(toy, tmp_path, decoders=FLOAT32)
    evaluation.dataset = three_levels
    nobody = decoded_lists(reached=np.array([[1, 0]] * 4, bool), accepted=np.zeros((4, 2), bool))
    monkeypatch.setattr(evaluation, "batches", lambda users: "batches")
    monkeypatch.setattr(evaluation, "decoded", lambda setting, users, **_: nobody)
    monkeypatch.setattr(module, "count_differences", lambda *arguments: (0, 0))
    row = evaluation.row(Setting.strict("draft", 2, DECODE), SimpleNamespace(users=np.arange(4)))
    assert row["acceptance_by_level"] == [0, None]
    assert row["coverage_by_level"][1] is None


def test_times_by_hand(toy, tmp_path, monkeypatch):
    """WS is the mean over users of the ratio of times, not the ratio of the means."""
    settings = [Setting.beam_search(5, "vocab"), Setting.strict("draft", 5, DECODE)]
    evaluation = make_evaluation(toy, tmp_path, decoders=SimpleNamespace(build=lambda setting: setting))
    given = []

    def latencies(decoders, batches, *, repeats):
        given.append((decoders, batches, repeats))
        return {settings[0].label: np.array([4.0, 12.0]), settings[1].label: np.array([1.0, 6.0])}

    monkeypatch.setattr(module.timing, "latencies", latencies)
    times = evaluation.times(settings)
    assert times[settings[1].label] == {
        "latency_ms_p50": 3.5,
        "latency_ms_p95": pytest.approx(1 + 0.95 * 5),
        "ws_vs_beam_search": (4 / 1 + 12 / 6) / 2,
        "ws_interval": [pytest.approx(2), pytest.approx(4)],  # of two users, drawn ten times
    }
    plain = times[settings[0].label]
    assert (plain["ws_vs_beam_search"], plain["ws_interval"]) == (1, [1, 1])
    ((decoders, batches, repeats),) = given  # all decoders in one call, which interleaves them
    assert list(decoders.values()) == settings
    assert repeats == 3
    assert [batch["tokens"].shape[0] for batch in batches] == [1, 1]
    assert all(batch["row"] >= 0 for batch in batches)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"target": {}, "popularity": {}, "covisitation": {}}'])
def test_what_was_measured_and_is_damaged_is_named(toy, tmp_path, content):
    evaluation = make_evaluation(toy, tmp_path)
    again = "delete it, and it is measured again"
    setting = Setting.beam_search(2, "vocab")
    label = f"row_{setting.label}_{len(evaluation.everyone.users)}"
    reads = {
        "quality_seen_kept": evaluation.quality,
        label: lambda: evaluation.row(setting, evaluation.everyone),
    }
    for name, read in reads.items():
        (tmp_path / f"{name}.json").write_text(content)
        with pytest.raises(ValueError, match=f"{re.escape(name)}.json is damaged .*; {again}"):
            read()


def test_a_failed_measurement_leaves_nothing(toy, tmp_path):
    evaluation = make_evaluation(toy, tmp_path)
    with pytest.raises(ZeroDivisionError):
        evaluation.store.remembered("row", lambda: {"value": 1 / 0}, {"value": int})
    assert not list(tmp_path.rglob("*.json"))


def test_plain_beam_search_is_decoded_once_per_k_and_users(toy, tmp_path, monkeypatch):
    evaluation = make_evaluation(toy, tmp_path, decoders=SimpleNamespace(build=lambda setting: setting))
    seen = []
    monkeypatch.setattr(module, "decode_users", lambda *arguments: seen.append(arguments) or decoded_lists())
    forgotten = []
    monkeypatch.setattr(module, "forget_programs", lambda: forgotten.append(len(seen)))
    draft = Setting.strict("draft", 5, DECODE)
    for setting, users in (
        (Setting.beam_search(5, "vocab"), evaluation.everyone),
        (draft, evaluation.everyone),
        (Setting.beam_search(5, "vocab"), evaluation.everyone),
        (Setting.beam_search(5, "vocab"), evaluation.some),
        (Setting.beam_search(2, "vocab"), evaluation.everyone),
    ):
        evaluation.decoded(setting, users)
    assert [(setting, users, keys) for setting, _, users, keys in seen] == [
        (Setting.beam_search(5, "vocab"), 5, None),
        (draft, 5, None),
        (Setting.beam_search(5, "vocab"), 2, None),
        (Setting.beam_search(2, "vocab"), 5, None),
    ]
    assert forgotten == [0, 1, 2, 3]  # before each decode: programs of many settings are too many for one process
