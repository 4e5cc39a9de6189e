"""What the lists of an evaluation are worth: quality, seen items kept and removed, and equality below float32."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.evaluation import evaluate as module
from atspeed_jax.serving.settings import Setting
from evaluations import BFLOAT16, DECODE, FLOAT32, decoded_lists, make_evaluation

THREE_LEVELS = SimpleNamespace(catalog=SimpleNamespace(length=3, items=7))


def test_below_float32_speculation_is_held_against_plain_beam_search_itself(toy, tmp_path, monkeypatch):
    """In the batch size of the config, and in another."""
    evaluation = make_evaluation(toy, tmp_path, decoders=BFLOAT16, batch_size=8)
    evaluation.dataset, users, asked = THREE_LEVELS, SimpleNamespace(users=np.arange(4)), []
    tokens = np.arange(24).reshape(4, 2, 3)
    score = np.zeros((4, 2))

    def lists(setting, users, batch_size=None):
        asked.append((setting.method, batch_size))
        changed = {"speculative": 2, "beam_search": 0 if batch_size is None else 1}[setting.method]  # users whose ids
        swapped = np.where(np.arange(4)[:, None, None] < changed, tokens[:, ::-1], tokens)
        return decoded_lists(tokens=swapped, score=score + changed / 4)

    monkeypatch.setattr(evaluation, "decoded", lists)
    monkeypatch.setattr(evaluation, "batches", lambda users: "batches")
    monkeypatch.setattr(module, "count_differences", lambda *arguments: (1, 2))
    row = evaluation.row(Setting.strict("draft", 2, DECODE), users)
    found = row["agreement"]
    assert (row["mismatched_users"], row["near_tie_users"]) == (1, 2)
    assert ("beam_search", 2) in asked
    assert (found["same_list"], found["items_shared"], found["score_gap"], found["largest_gap"]) == (0.5, 1, 0.5, 0.5)
    assert found["itself"] == {"same_list": 0.75, "items_shared": 1, "score_gap": 0.25, "largest_gap": 0.25}
    assert found["arithmetic"] == "as bfloat16"
    assert (found["itself_batch_size"], found["loses_more"]) == (2, ["score_gap"])
    assert "agreement" not in evaluation.row(Setting.beam_search(2, "vocab"), users)
    exact = make_evaluation(toy, tmp_path / "exact", decoders=FLOAT32)
    exact.dataset, exact.decoded, exact.batches = THREE_LEVELS, evaluation.decoded, evaluation.batches
    assert "agreement" not in exact.row(Setting.strict("draft", 2, DECODE), users)


def test_quality_by_hand(toy, tmp_path, monkeypatch):
    """Ids become items, seen items go or stay, and all three are compared on the same users."""
    evaluation = make_evaluation(toy, tmp_path, decoders=toy.decoders)
    ids = toy.catalog.id_of_item
    lists = np.full((5, 10), -1)
    lists[0, :3] = ids[[3, 6, 2]]
    lists[1, :2] = ids[[4, 1]]  # the id of 4 is that of 5 as well: 1 comes third
    lists[2, :1] = ids[3]
    monkeypatch.setattr(evaluation, "decoded", lambda setting, users: decoded_lists(ids=lists))
    quality = evaluation.quality()
    kept, removed = (quality["target"][habit] for habit in ("seen_kept", "seen_removed"))
    assert kept["users"] == 5
    assert quality["target_fingerprint"] == "t1"
    ideal = 1 + 1 / math.log2(3)
    assert kept["recall@1"] == pytest.approx((0 + 0 + 1) / 5)
    assert kept["recall@5"] == pytest.approx((1 + 1 + 1) / 5)
    first = (1 / math.log2(3) + 1 / 2) / ideal
    assert kept["ndcg@10"] == pytest.approx((first + 1 / 2 + 1) / 5)
    # The catalog has fewer than ten items: every one not seen is listed. User 0 saw both true ones.
    assert removed["recall@10"] == pytest.approx((0 + 1 + 1 + 1 + 1) / 5)
    assert (removed["impossible"], kept["impossible"], removed["truths"]) == (2, 0, 6)
    assert set(quality["popularity"]) == set(quality["covisitation"]) == {"seen_kept", "seen_removed"}
    for name in ("popularity", "covisitation"):
        for habit, difference in quality["differences"][f"target - {name}"].items():
            expected = quality["target"][habit]["recall@10"] - quality[name][habit]["recall@10"]
            assert difference["recall@10"] == pytest.approx(expected)


def test_seen_removed_is_searched_for_and_remembered(toy, tmp_path):
    """The list is that of the catalog without the items seen: it stays full, however many of the best were seen."""
    evaluation = make_evaluation(toy, tmp_path, decoders=toy.decoders)
    every = evaluation._target_ids(None)  # ten places, all six ids
    for seen in ([0, 1, 2], [4], [4, 5], []):
        histories = [np.array(seen, np.int64)] * 5
        found = evaluation._target_ids(histories)
        gone = {row for row in range(6) if set(np.flatnonzero(toy.catalog.id_of_item == row)) <= set(seen)}
        expected = [[row for row in own.tolist() if row >= 0 and row not in gone] for own in every]
        assert [[row for row in own.tolist() if row >= 0] for own in found] == expected
    evaluation.quality()
    again = make_evaluation(toy, tmp_path, decoders=None)  # nothing to decode with
    assert again.quality() == evaluation.quality()
