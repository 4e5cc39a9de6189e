import math

import numpy as np
import pytest

from atspeed_jax.evaluation.metrics import (
    MetricError,
    bootstrap_interval,
    compare,
    measure_lists,
    ndcg_at,
    paired_difference,
    recall_at,
    summarize,
)

# Three users: hits at ranks 1 and 3 of two true items; a hit at rank 2 of five true items; a short list without hits.
LISTS = np.array([[7, 2, 5, 1], [3, 8, 0, 2], [4, -1, -1, -1]])
ITEMS = 40
TRUTHS = [np.array([5, 7]), np.array([8, 11, 12, 13, 14]), np.array([6])]


def test_recall_by_hand():
    np.testing.assert_allclose(recall_at(LISTS, TRUTHS, 1, items=ITEMS), [1 / 2, 0, 0])
    np.testing.assert_allclose(recall_at(LISTS, TRUTHS, 2, items=ITEMS), [1 / 2, 1 / 5, 0])
    np.testing.assert_allclose(recall_at(LISTS, TRUTHS, 4, items=ITEMS), [2 / 2, 1 / 5, 0])


def test_ndcg_by_hand():
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    np.testing.assert_allclose(ndcg_at(LISTS, TRUTHS, 1, items=ITEMS), [1, 0, 0])
    np.testing.assert_allclose(ndcg_at(LISTS, TRUTHS, 2, items=ITEMS), [1 / (1 + second), second / (1 + second), 0])
    # The ideal list of the first user has two hits only; that of the second user fills all four places.
    ideal_4 = 1 + second + third + 1 / math.log2(5)
    np.testing.assert_allclose(
        ndcg_at(LISTS, TRUTHS, 4, items=ITEMS), [(1 + third) / (1 + second), second / ideal_4, 0]
    )


def test_against_a_plain_loop():
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(40)[:12] for _ in range(200)])
    lists[rng.random(lists.shape) < 0.2] = -1
    truths = [rng.choice(40, rng.integers(1, 9)) for _ in range(200)]  # with repeats
    for k in (1, 5, 12):
        for row, truth, recall, ndcg in zip(
            lists, truths, recall_at(lists, truths, k, items=ITEMS), ndcg_at(lists, truths, k, items=ITEMS), strict=True
        ):
            true = set(truth.tolist())
            gains = [1 / math.log2(rank + 2) if item in true else 0 for rank, item in enumerate(row[:k])]
            ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(true))))
            assert recall == pytest.approx(len(true & set(row[:k].tolist())) / len(true))
            assert ndcg == pytest.approx(sum(gains) / ideal)


def test_perfect_list_scores_one_and_empty_list_zero():
    truths = [np.array([3, 1, 2])]
    for measure in (recall_at, ndcg_at):
        assert measure(np.array([[1, 2, 3, 0]]), truths, 4, items=ITEMS) == 1
        assert measure(np.array([[-1, -1, -1, -1]]), truths, 4, items=ITEMS) == 0


def test_measure_lists_names_every_measure():
    measures = measure_lists(LISTS, TRUTHS, (1, 4), items=ITEMS)
    assert list(measures) == ["recall@1", "recall@4", "ndcg@1", "ndcg@4"]
    np.testing.assert_array_equal(measures["ndcg@4"], ndcg_at(LISTS, TRUTHS, 4, items=ITEMS))


@pytest.mark.parametrize(
    ("lists", "truths", "k", "message"),
    [
        (LISTS, TRUTHS, 5, "k = 5, expected 1 to 4"),
        (LISTS, TRUTHS, 0, "k = 0, expected 1 to 4"),
        (LISTS, TRUTHS[:2], 1, r"shape \(3, 4\), expected \[2, K\]"),
        (LISTS, [*TRUTHS[:2], np.array([], int)], 1, "user 2 of 3 has no true items"),
        (np.array([[1, 2], [9, 9]]), TRUTHS[:2], 2, "user 1 holds item 9 twice"),
    ],
)
def test_bad_input(lists, truths, k, message):
    with pytest.raises(MetricError, match=message):
        recall_at(lists, truths, k, items=ITEMS)


@pytest.mark.parametrize("user", range(3))
@pytest.mark.parametrize("item", [-1, ITEMS])
def test_an_item_outside_the_catalog_is_named_with_its_user(user, item):
    truths = [*TRUTHS]
    truths[user] = np.array([1, item])
    with pytest.raises(MetricError, match=f"user {user} of 3: true item {item}; the catalog has items 0 to 39"):
        measure_lists(LISTS, truths, (2,), items=ITEMS)
    lists = LISTS.copy()
    lists[user, 3] = item = item if item > 0 else -2  # -1 is an empty place
    with pytest.raises(MetricError, match=f"user {user} of 3: listed item {item}; the catalog has items 0 to 39"):
        measure_lists(lists, TRUTHS, (2,), items=ITEMS)


def test_bootstrap_is_reproducible_and_follows_its_seed():
    values = np.random.default_rng(1).random(300)
    first = bootstrap_interval(values, samples=500, seed=3)
    assert first == bootstrap_interval(values, samples=500, seed=3)
    assert first != bootstrap_interval(values, samples=500, seed=4)


def test_bootstrap_interval_is_that_of_the_normal_law():
    values = np.random.default_rng(2).normal(5.0, 2.0, 4000)
    mean, low, high = bootstrap_interval(values, samples=4000, seed=0)
    assert mean == values.mean()
    error = values.std() / math.sqrt(len(values))
    assert low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_bootstrap_does_not_depend_on_the_block_size(monkeypatch):
    values = np.random.default_rng(3).random(50)
    whole = bootstrap_interval(values, samples=101, seed=0)
    monkeypatch.setattr("atspeed_jax.evaluation.metrics._DRAWS_AT_ONCE", 7 * len(values))
    assert bootstrap_interval(values, samples=101, seed=0) == whole


def test_paired_difference_uses_the_pairing():
    rng = np.random.default_rng(4)
    base = rng.random(500)
    better = base + 0.01
    mean, low, high = paired_difference(better, base, samples=200, seed=0)
    assert low == pytest.approx(0.01)
    assert mean == pytest.approx(0.01)
    assert high == pytest.approx(0.01)
    assert paired_difference(better, rng.permutation(base), samples=200, seed=0).low < 0


def test_entries_of_the_report():
    a, b = measure_lists(LISTS, TRUTHS, (2,), items=ITEMS), measure_lists(LISTS[:, ::-1], TRUTHS, (2,), items=ITEMS)
    entry = summarize(a, samples=50, seed=0)
    assert entry["recall@2"] == pytest.approx(a["recall@2"].mean())
    assert entry["users"] == 3
    assert entry["intervals"]["recall@2"] == list(bootstrap_interval(a["recall@2"], samples=50, seed=0)[1:])
    difference = compare(a, b, samples=50, seed=0)
    assert difference["ndcg@2"] == pytest.approx((a["ndcg@2"] - b["ndcg@2"]).mean())
    with pytest.raises(MetricError, match="recall@2"):
        compare(a, {"ndcg@2": b["ndcg@2"]}, samples=50, seed=0)


@pytest.mark.parametrize(
    ("values", "samples", "message"),
    [
        (np.zeros(0), 10, "at least one user"),
        (np.zeros((2, 2)), 10, r"expected \[N\]"),
        (np.array([0.5, np.nan]), 10, "user 1: not finite"),
        (np.zeros(3), 0, "samples = 0"),
    ],
)
def test_bad_values(values, samples, message):
    with pytest.raises(MetricError, match=message):
        bootstrap_interval(values, samples=samples, seed=0)


def test_paired_difference_needs_the_same_users():
    with pytest.raises(MetricError, match="same users"):
        paired_difference(np.zeros(3), np.zeros(4), samples=10, seed=0)


def test_rows_of_one_user_are_resampled_together():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 5)
    values = rng.normal(size=60)[users] + 0.01 * rng.normal(size=300)
    by_user = bootstrap_interval(values, samples=1000, seed=0, groups=users)
    by_row = bootstrap_interval(values, samples=1000, seed=0)
    assert by_user.mean == by_row.mean
    # Five equal rows say no more than one: the true error is sqrt(5) times that of 300 rows.
    assert 1.9 < (by_user.high - by_user.low) / (by_row.high - by_row.low) < 2.6
    alone = bootstrap_interval(values, samples=50, seed=0, groups=np.arange(300))
    assert alone == pytest.approx(bootstrap_interval(values, samples=50, seed=0), rel=1e-12)
    summary = summarize({"a": values}, samples=1000, seed=0, groups=users)
    assert summary["intervals"]["a"] == [by_user.low, by_user.high]
    compared = compare({"a": values}, {"a": 0 * values}, samples=1000, seed=0, groups=users)
    assert compared["intervals"]["a"] == [by_user.low, by_user.high]
