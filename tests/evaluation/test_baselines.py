import numpy as np
import pytest

from atspeed_jax.data.sources import read_atspeed
from atspeed_jax.evaluation.baselines import (
    COVISITATION,
    BaselineError,
    CovisitationConfig,
    covisitation_lists,
    covisitation_similarity,
    popularity_lists,
)
from atspeed_jax.evaluation.metrics import ndcg_at, recall_at

# Six items; item 5 is never trained on, and items 0 and 3 are equally popular.
TRAIN = [np.array([0, 1, 2]), np.array([3, 1, 0]), np.array([3, 4, 3])]
POPULARITY = np.array([2, 2, 1, 3, 1, 0])


def test_popularity_lists_by_hand():
    histories = [np.array([], int), np.array([0, 3])]
    kept = popularity_lists(POPULARITY, histories, k=4, remove_seen=False)
    np.testing.assert_array_equal(kept, [[3, 0, 1, 2], [3, 0, 1, 2]])
    removed = popularity_lists(POPULARITY, histories, k=4, remove_seen=True)
    np.testing.assert_array_equal(removed, [[3, 0, 1, 2], [1, 2, 4, 5]])


def test_a_list_longer_than_the_catalog_ends_in_empty_places():
    lists = popularity_lists(POPULARITY, [np.array([3, 0])], k=6, remove_seen=True)
    np.testing.assert_array_equal(lists, [[1, 2, 4, 5, -1, -1]])


@pytest.mark.parametrize(("user", "item"), [(0, -1), (1, -1), (1, 6)])
def test_an_item_outside_the_catalog_is_named_with_its_user(user, item):
    histories = [np.array([0, 3]), np.array([2])]
    histories[user] = np.array([1, item])
    message = f"history {user} holds item {item}; the catalog has items 0 to 5"
    with pytest.raises(BaselineError, match=message):
        popularity_lists(POPULARITY, histories, k=4, remove_seen=True)
    with pytest.raises(BaselineError, match=message):
        covisitation_lists(TRAIN, POPULARITY, histories, COVISITATION, k=4, remove_seen=True)


def test_similarity_by_hand():
    config = CovisitationConfig(window=2, history=3, decay=0.5)
    similarity = covisitation_similarity(TRAIN, POPULARITY, config).toarray()
    np.testing.assert_allclose(similarity, similarity.T)
    np.testing.assert_allclose(similarity.diagonal(), 0)  # 3 stands beside itself, which says nothing
    assert similarity[0, 1] == pytest.approx((1 + 1) / np.sqrt(2 * 2))
    assert similarity[0, 2] == pytest.approx((1 / 2) / np.sqrt(2 * 1))
    assert similarity[3, 0] == pytest.approx((1 / 2) / np.sqrt(3 * 2))
    assert similarity[3, 4] == pytest.approx((1 + 1) / np.sqrt(3 * 1))
    assert similarity[2, 3] == 0
    assert not similarity[5].any()


def test_a_window_of_one_sees_neighbours_only():
    config = CovisitationConfig(window=1, history=3, decay=0.5)
    similarity = covisitation_similarity(TRAIN, POPULARITY, config).toarray()
    assert similarity[0, 2] == 0
    assert similarity[0, 1] == pytest.approx(1)


def test_covisitation_lists_by_hand():
    config = CovisitationConfig(window=2, history=2, decay=0.5)
    similarity = covisitation_similarity(TRAIN, POPULARITY, config).toarray()
    # The oldest item, 4, is beyond the history; 2 votes with weight 1, 3 with weight 1/2.
    histories = [np.array([4, 3, 2])]
    scores = similarity[2] + 0.5 * similarity[3]
    by_score = [item for item in np.argsort(-scores) if scores[item] > 0]
    assert by_score == [1, 4, 0]  # 0.707 + 0.204, 0.577, 0.354 + 0.102: all apart
    kept = covisitation_lists(TRAIN, POPULARITY, histories, config, k=5, remove_seen=False)
    np.testing.assert_array_equal(kept, [[1, 4, 0, 3, 2]])  # then by popularity
    removed = covisitation_lists(TRAIN, POPULARITY, histories, config, k=5, remove_seen=True)
    np.testing.assert_array_equal(removed, [[1, 0, 5, -1, -1]])


def test_items_beyond_the_history_do_not_vote():
    config = CovisitationConfig(window=2, history=2, decay=0.5)
    # The vote of 4 would lift 3 from 0.102 above 0 (0.354) and 2 (0.177).
    lists = covisitation_lists(TRAIN, POPULARITY, [np.array([4, 0, 2])], config, k=4, remove_seen=False)
    np.testing.assert_array_equal(lists, [[1, 0, 2, 3]])


def test_ties_go_to_the_more_popular_item_then_to_the_lower_number():
    train = [np.array(pair) for pair in ((0, 1), (0, 3), (0, 2), (0, 2))]
    popularity = np.array([1, 1, 4, 1])  # 0 is as similar to 1 (1 / 1) as to 2 (2 / sqrt 4) and to 3
    lists = covisitation_lists(train, popularity, [np.array([0])], COVISITATION, k=3, remove_seen=True)
    np.testing.assert_array_equal(lists, [[2, 1, 3]])


def test_empty_histories_fall_back_to_popularity():
    empty = [np.array([], int)] * 2
    lists = covisitation_lists(TRAIN, POPULARITY, empty, COVISITATION, k=3, remove_seen=True)
    np.testing.assert_array_equal(lists, [[3, 0, 1], [3, 0, 1]])


def test_block_size_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    train = [rng.integers(30, size=rng.integers(0, 9)) for _ in range(50)]
    popularity = np.bincount(np.concatenate(train), minlength=30)
    whole = covisitation_lists(train, popularity, train, COVISITATION, k=10, remove_seen=True)
    monkeypatch.setattr("atspeed_jax.evaluation.baselines._USERS_AT_ONCE", 7)
    np.testing.assert_array_equal(
        covisitation_lists(train, popularity, train, COVISITATION, k=10, remove_seen=True), whole
    )
    for seen, row in zip(train, whole, strict=True):
        assert not np.isin(row, seen).any()
        assert len(set(row.tolist())) == 10


def test_bad_settings():
    with pytest.raises(BaselineError, match="k = 0"):
        popularity_lists(POPULARITY, [np.array([1])], k=0, remove_seen=True)


def test_beauty_figures(beauty_dir):
    """Recall@10 and NDCG@10 known for this split. They change only if data, definition or measure does."""
    source = read_atspeed(beauty_dir)
    popularity = np.bincount(np.concatenate(source.train), minlength=len(source.codes))
    users = [user for user, truth in enumerate(source.test) if len(truth)]
    truths = [source.test[user] for user in users]
    histories = [np.concatenate((source.train[user], source.valid[user])) for user in users]
    lists = {
        "popularity": popularity_lists(popularity, histories, k=20, remove_seen=True),
        "covisitation": covisitation_lists(source.train, popularity, histories, COVISITATION, k=20, remove_seen=True),
    }
    size = {"items": len(popularity)}
    figures = {
        name: (round(recall_at(rows, truths, 10, **size).mean(), 4), round(ndcg_at(rows, truths, 10, **size).mean(), 4))
        for name, rows in lists.items()
    }
    assert len(users) == 3553
    assert figures == {"popularity": (0.0089, 0.0053), "covisitation": (0.0191, 0.0127)}
