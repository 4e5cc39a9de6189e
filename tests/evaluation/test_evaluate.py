"""Who is measured, with what, and the arithmetic of the report's rows; the decoding itself is tested elsewhere."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.evaluation import evaluate as module
from atspeed_jax.evaluation.decode_users import Decoded
from atspeed_jax.evaluation.decoders import DecodeConfig, plain, speculative
from atspeed_jax.evaluation.evaluate import EvaluateConfig, Evaluation, users_with_items
from atspeed_jax.items.catalog import BOS

CONFIG = EvaluateConfig(
    list_size=10,
    beams=(5, 2),
    grid_beams=(3,),
    grid_widths=(("all",), (3,)),
    grid_users=2,
    drafters=("draft", "popularity"),
    users=None,
    batch_size=2,
    buckets=(1, 4),
    latency_users=2,
    latency_repeats=3,
    bootstrap_samples=10,
    seed=0,
)
DECODE = DecodeConfig(widths=("all",), gamma=1, score_norm="vocab")
FLOAT32, BFLOAT16 = (  # decoders that decode nothing
    SimpleNamespace(target=SimpleNamespace(dtype=dtype, precision="highest", arithmetic=f"as {dtype}"))
    for dtype in ("float32", "bfloat16")
)
SPLITS = {
    "train": ([0, 1, 2, 3, 6], [], [3], [5, 5], [], [6]),
    "valid": ([4], [], [], [0], [], []),
    "test": ([6, 2], [1], [], [3], [0], [2]),
}


def make(toy, directory, **changes) -> Evaluation:
    splits = {
        name: tuple(np.array(items, np.int32) for items in changes.pop(name, rows)) for name, rows in SPLITS.items()
    }
    return Evaluation(
        directory,
        Dataset("toy", toy.catalog, **splits),
        changes.pop("decoders", None),
        changes.pop("decode", DECODE),
        dataclasses.replace(CONFIG, **changes),
        history=4,
        fingerprint="f1",
        target_fingerprint="t1",
        say=lambda text: None,
    )


def test_users_are_those_with_items_and_know_what_came_before(toy, tmp_path):
    dataset = make(toy, tmp_path).dataset
    test, valid = users_with_items(dataset, "test"), users_with_items(dataset, "valid")
    assert test.users.tolist() == [0, 1, 3, 4, 5] and valid.users.tolist() == [0, 3]
    assert [items.tolist() for items in test.histories] == [[0, 1, 2, 3, 6, 4], [], [5, 5, 0], [], [6]]
    assert [items.tolist() for items in valid.histories] == [[0, 1, 2, 3, 6], [5, 5]]
    assert [items.tolist() for items in test.truths] == [[6, 2], [1], [3], [0], [2]]


def test_a_choice_is_fixed_in_order_and_at_most_everyone(toy, tmp_path):
    everyone = make(toy, tmp_path).everyone
    chosen = everyone.choose(3, 1)
    assert chosen.users.tolist() == sorted(chosen.users.tolist()) and len(set(chosen.users.tolist())) == 3
    assert chosen.users.tolist() == everyone.choose(3, 1).users.tolist()
    assert {tuple(everyone.choose(3, seed).users.tolist()) for seed in range(9)} > {tuple(chosen.users.tolist())}
    for row, user in enumerate(chosen.users):
        place = everyone.users.tolist().index(user)
        assert chosen.truths[row] is everyone.truths[place] and chosen.histories[row] is everyone.histories[place]
    assert everyone.choose(99, 1).users.tolist() == everyone.users.tolist()
    assert make(toy, tmp_path, users=2).everyone.users.tolist() == everyone.choose(2, 0).users.tolist()


def test_prompts_keep_the_newest_items_and_may_be_empty(toy, tmp_path):
    evaluation = make(toy, tmp_path)
    prompts = {}
    for batch in evaluation.everyone.batches(evaluation.dataset, evaluation.config, 4, 2):
        assert batch["tokens"].shape in ((2, 1 + 2), (2, 1 + 2 * 4))
        for row, tokens, valid in zip(batch["row"], batch["tokens"], batch["valid"], strict=True):
            if row >= 0:
                prompts[int(row)] = tokens[valid].tolist()
    newest = toy.catalog.tokens([2, 3, 6, 4]).reshape(-1).tolist()
    assert prompts[0] == [BOS, *newest] and prompts[1] == prompts[3] == [BOS]
    assert sorted(prompts) == [0, 1, 2, 3, 4]


def test_fewer_users_have_the_longest_prompts_alone(toy, tmp_path):
    evaluation = make(toy, tmp_path)
    shapes = {
        users: {batch["tokens"].shape for batch in evaluation.batches(getattr(evaluation, users))}
        for users in ("everyone", "some")
    }
    assert shapes == {"everyone": {(2, 3), (2, 9)}, "some": {(2, 9)}}
    single = evaluation.batches(evaluation.everyone.choose(9, 0), batch_size=1)
    assert [batch["tokens"].shape for batch in single] == [(1, 9)] * 5


@pytest.mark.parametrize("full", [False, True])
def test_settings_cover_the_grid_once(toy, tmp_path, full):
    evaluation = make(toy, tmp_path, decoders=toy.decoders)
    rows = [(setting, len(users.users)) for setting, users in evaluation.settings(full)]
    some = 5 if full else 2
    expected = []
    for beams in (5, 2, 3):
        everyone = 5 if beams != 3 else some
        expected.append((plain(beams, "vocab"), everyone))
        for widths in (("all",), (3,)):
            for drafter in ("draft", "popularity"):
                setting = speculative(drafter, beams, dataclasses.replace(DECODE, widths=widths))
                expected.append((setting, everyone if widths == ("all",) else some))
    assert rows == expected and len(set(rows)) == 15


def decoded(**changes) -> Decoded:
    """Four users, three levels."""
    values = {
        "ids": np.zeros((4, 2), int),
        "tokens": np.zeros((4, 2, 3), int),
        "score": np.zeros((4, 2)),
        "calls": np.array([1, 2, 3, 1]),
        "given_up": np.zeros(4),
        "batch_rounds": 5,
        "batches": 2,
        "seconds": 0.25,
        "reached": np.array([[1, 1], [1, 1], [1, 0], [1, 1]], bool),
        "accepted": np.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool),
        "coverage": np.array([[1, 1], [1, 0.5], [0.25, 0.75], [1, 1]]),
    }
    return Decoded(**(values | changes))


@pytest.fixture
def three_levels(toy):
    """The toy catalogue with an id length of three, to count with."""
    return SimpleNamespace(catalog=SimpleNamespace(length=3, items=7))


def test_a_row_by_hand(toy, three_levels, tmp_path, monkeypatch):
    evaluation = make(toy, tmp_path, decoders=FLOAT32)
    evaluation.dataset = three_levels
    users = SimpleNamespace(users=np.arange(4))
    plain_lists = decoded(calls=np.full(4, 3), reached=None, accepted=None, coverage=None)
    setting = speculative("draft", 2, DECODE)
    monkeypatch.setattr(evaluation, "batches", lambda users: "batches")
    monkeypatch.setattr(
        evaluation, "decoded", lambda setting, users: decoded() if setting.drafter == "draft" else plain_lists
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
    assert arguments[1:3] == (setting, plain(2, "vocab")) and arguments[4] is plain_lists

    baseline = evaluation.row(plain(2, "vocab"), users)
    assert baseline["acceptance_by_level"] is baseline["coverage_by_level"] is None
    assert (baseline["target_calls_mean"], baseline["accept_steps_mean"], baseline["widths"]) == (3, 0, [])


def test_below_float32_speculation_is_held_against_plain_beam_search_itself(toy, three_levels, tmp_path, monkeypatch):
    """In the batch size of the config, and in another."""
    evaluation = make(toy, tmp_path, decoders=BFLOAT16, batch_size=8)
    evaluation.dataset, users, asked = three_levels, SimpleNamespace(users=np.arange(4)), []
    tokens = np.arange(24).reshape(4, 2, 3)
    score = np.zeros((4, 2))

    def lists(setting, users, batch_size=None):
        asked.append((setting.method, batch_size))
        changed = {"speculative": 2, "beam_search": 0 if batch_size is None else 1}[setting.method]  # users whose ids
        swapped = np.where(np.arange(4)[:, None, None] < changed, tokens[:, ::-1], tokens)
        return decoded(tokens=swapped, score=score + changed / 4)

    monkeypatch.setattr(evaluation, "decoded", lists)
    monkeypatch.setattr(evaluation, "batches", lambda users: "batches")
    monkeypatch.setattr(module, "count_differences", lambda *arguments: (1, 2))
    row = evaluation.row(speculative("draft", 2, DECODE), users)
    found = row["agreement"]
    assert (row["mismatched_users"], row["near_tie_users"]) == (1, 2) and ("beam_search", 2) in asked
    assert (found["same_list"], found["items_shared"], found["score_gap"], found["largest_gap"]) == (0.5, 1, 0.5, 0.5)
    assert found["itself"] == {"same_list": 0.75, "items_shared": 1, "score_gap": 0.25, "largest_gap": 0.25}
    assert found["arithmetic"] == "as bfloat16"
    assert (found["itself_batch_size"], found["loses_more"]) == (2, ["score_gap"])
    assert "agreement" not in evaluation.row(plain(2, "vocab"), users)
    exact = make(toy, tmp_path / "exact", decoders=FLOAT32)
    exact.dataset, exact.decoded, exact.batches = three_levels, evaluation.decoded, evaluation.batches
    assert "agreement" not in exact.row(speculative("draft", 2, DECODE), users)


def test_a_level_nobody_reached_has_no_share(toy, three_levels, tmp_path, monkeypatch):
    evaluation = make(toy, tmp_path, decoders=FLOAT32)
    evaluation.dataset = three_levels
    nobody = decoded(reached=np.array([[1, 0]] * 4, bool), accepted=np.zeros((4, 2), bool))
    monkeypatch.setattr(evaluation, "batches", lambda users: "batches")
    monkeypatch.setattr(evaluation, "decoded", lambda setting, users: nobody)
    monkeypatch.setattr(module, "count_differences", lambda *arguments: (0, 0))
    row = evaluation.row(speculative("draft", 2, DECODE), SimpleNamespace(users=np.arange(4)))
    assert row["acceptance_by_level"] == [0, None] and row["coverage_by_level"][1] is None


def test_times_by_hand(toy, tmp_path, monkeypatch):
    """WS is the mean over users of the ratio of times, not the ratio of the means."""
    settings = [plain(5, "vocab"), speculative("draft", 5, DECODE)]
    evaluation = make(toy, tmp_path, decoders=SimpleNamespace(build=lambda setting: setting))
    given = []

    def latencies(decoders, batches, *, repeats):
        given.append((decoders, batches, repeats))
        return {settings[0].label: np.array([4.0, 12.0]), settings[1].label: np.array([1.0, 6.0])}

    monkeypatch.setattr(module.benchmark, "latencies", latencies)
    times = evaluation.times(settings)
    assert times[settings[1].label] == {
        "latency_ms_p50": 3.5,
        "latency_ms_p95": pytest.approx(1 + 0.95 * 5),
        "ws_vs_beam_search": (4 / 1 + 12 / 6) / 2,
    }
    assert times[settings[0].label]["ws_vs_beam_search"] == 1
    ((decoders, batches, repeats),) = given  # all decoders in one call, which interleaves them
    assert list(decoders.values()) == settings and repeats == 3
    assert [batch["tokens"].shape[0] for batch in batches] == [1, 1] and all(batch["row"] >= 0 for batch in batches)


def test_what_was_measured_is_remembered_for_its_fingerprint_alone(toy, tmp_path):
    first, again, other = make(toy, tmp_path), make(toy, tmp_path), make(toy, tmp_path)
    other.directory = tmp_path / "f2"
    assert first.directory == tmp_path / "f1"
    assert first._remembered("row", lambda: {"value": 1}) == {"value": 1}
    assert again._remembered("row", lambda: pytest.fail("measured twice")) == {"value": 1}
    assert again._remembered("other", lambda: {"value": 3}) == {"value": 3}
    assert other._remembered("row", lambda: {"value": 2}) == {"value": 2}
    assert first._remembered("row", lambda: pytest.fail("measured twice")) == {"value": 1}


def test_a_failed_measurement_leaves_nothing(toy, tmp_path):
    evaluation = make(toy, tmp_path)
    with pytest.raises(ZeroDivisionError):
        evaluation._remembered("row", lambda: {"value": 1 / 0})
    assert not list(tmp_path.rglob("*.json"))


def test_plain_beam_search_is_decoded_once_per_k_and_users(toy, tmp_path, monkeypatch):
    evaluation = make(toy, tmp_path, decoders=SimpleNamespace(build=lambda setting: setting))
    seen = []
    monkeypatch.setattr(module, "decode_users", lambda *arguments: seen.append(arguments) or decoded())
    forgotten = []
    monkeypatch.setattr(module, "forget_programs", lambda: forgotten.append(len(seen)))
    draft = speculative("draft", 5, DECODE)
    for setting, users in (
        (plain(5, "vocab"), evaluation.everyone),
        (draft, evaluation.everyone),
        (plain(5, "vocab"), evaluation.everyone),
        (plain(5, "vocab"), evaluation.some),
        (plain(2, "vocab"), evaluation.everyone),
    ):
        evaluation.decoded(setting, users)
    assert [(setting, users, keys) for setting, _, users, keys in seen] == [
        (plain(5, "vocab"), 5, None),
        (draft, 5, None),
        (plain(5, "vocab"), 2, None),
        (plain(2, "vocab"), 5, None),
    ]
    assert forgotten == [0, 1, 2, 3]  # before each decode: programs of many settings are too many for one process


def test_quality_by_hand(toy, tmp_path, monkeypatch):
    """Ids become items, seen items go or stay, and all three are compared on the same users."""
    evaluation = make(toy, tmp_path, decoders=toy.decoders)
    ids = toy.catalog.id_of_item
    lists = np.full((5, 10), -1)
    lists[0, :3] = ids[[3, 6, 2]]
    lists[1, :2] = ids[[4, 1]]  # the id of 4 is that of 5 as well: 1 comes third
    lists[2, :1] = ids[3]
    monkeypatch.setattr(evaluation, "decoded", lambda setting, users: decoded(ids=lists))
    quality = evaluation.quality()
    kept, removed = (quality["target"][habit] for habit in ("seen_kept", "seen_removed"))
    assert kept["users"] == 5 and quality["target_fingerprint"] == "t1"
    ideal = 1 + 1 / math.log2(3)
    assert kept["recall@1"] == pytest.approx((0 + 0 + 1) / 5)
    assert kept["recall@5"] == pytest.approx((1 + 1 + 1) / 5)
    first = (1 / math.log2(3) + 1 / 2) / ideal
    assert kept["ndcg@10"] == pytest.approx((first + 1 / 2 + 1) / 5)
    # The catalogue has fewer than ten items: every one not seen is listed. User 0 saw both true ones.
    assert removed["recall@10"] == pytest.approx((0 + 1 + 1 + 1 + 1) / 5)
    assert (removed["impossible"], kept["impossible"], removed["truths"]) == (2, 0, 6)
    assert set(quality["popularity"]) == set(quality["covisitation"]) == {"seen_kept", "seen_removed"}
    for name in ("popularity", "covisitation"):
        for habit, difference in quality["differences"][f"target - {name}"].items():
            expected = quality["target"][habit]["recall@10"] - quality[name][habit]["recall@10"]
            assert difference["recall@10"] == pytest.approx(expected)


def test_seen_removed_is_searched_for_and_remembered(toy, tmp_path):
    """The list is that of the catalogue without the items seen: it stays full, however many of the best were seen."""
    evaluation = make(toy, tmp_path, decoders=toy.decoders)
    every = evaluation._target_ids(None)  # ten places, all six ids
    for seen in ([0, 1, 2], [4], [4, 5], []):
        histories = [np.array(seen, np.int64)] * 5
        found = evaluation._target_ids(histories)
        gone = {row for row in range(6) if set(np.flatnonzero(toy.catalog.id_of_item == row)) <= set(seen)}
        expected = [[row for row in own.tolist() if row >= 0 and row not in gone] for own in every]
        assert [[row for row in own.tolist() if row >= 0] for own in found] == expected
    evaluation.quality()
    again = make(toy, tmp_path, decoders=None)  # nothing to decode with
    assert again.quality() == evaluation.quality()
