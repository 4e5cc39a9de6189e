"""Item and id level, counts, and the turn from habits to methods, by hand."""

import numpy as np
import pytest

from atspeed_jax.evaluation.quality import BASELINES, Found, by_method, measure
from atspeed_jax.items.catalog import Catalog

CATALOG = Catalog.from_codes(np.array([[0, 0], [0, 1], [1, 0], [0, 1], [1, 1]]))  # items 1 and 3 share id 1
SAMPLING = {"samples": 10, "seed": 0}


def test_ids_of_a_list_of_items():
    """A shared id is listed once, where the first of its items is."""
    items = np.array([[2, 3, 1, 4], [1, 2, 3, -1], [-1, -1, -1, -1]])
    found = Found.of_items(CATALOG, items)
    assert found.items is items
    assert found.ids.tolist() == [[2, 1, 3, -1], [1, 2, -1, -1], [-1] * 4]


def test_a_collision_is_a_hit_of_ids_alone():
    lists = {name: Found.of_items(CATALOG, np.array([[3], [0], [4]])) for name in ("target", *BASELINES)}
    truths = [np.array([1]), np.array([0, 3]), np.array([1, 3])]  # the last user's two are one id
    measured = measure(lists, CATALOG, truths, [[]] * 3, **SAMPLING)
    entry = measured["target"]
    assert entry["recall@1"] == pytest.approx((0 + 1 / 2 + 0) / 3)
    assert entry["id_recall@1"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert (entry["hits"], entry["truths"]) == (1, 5)
    assert (entry["id_hits"], entry["id_truths"]) == (2, 4)
    assert (entry["impossible"], entry["id_impossible"], entry["users"]) == (0, 0, 3)


def test_true_items_among_those_seen_are_impossible():
    """An id is impossible only if all its items were seen."""
    lists = {name: Found.of_items(CATALOG, np.array([[0], [0]])) for name in ("target", *BASELINES)}
    truths, seen = [np.array([1, 2, 2]), np.array([3])], [np.array([2, 1]), np.array([1, 3, 3])]
    entry = measure(lists, CATALOG, truths, seen, **SAMPLING)["popularity"]
    assert (entry["truths"], entry["impossible"]) == (3, 3)
    assert (entry["id_truths"], entry["id_impossible"]) == (3, 2)


def test_differences_are_the_targets_less_a_baselines():
    items = {"target": [[1], [0]], "popularity": [[0], [0]], "covisitation": [[4], [4]]}
    lists = {name: Found.of_items(CATALOG, np.array(rows)) for name, rows in items.items()}
    found = measure(lists, CATALOG, [np.array([1]), np.array([0])], [[], []], **SAMPLING)["differences"]
    assert {name: entry["recall@1"] for name, entry in found.items()} == {
        "target - popularity": 0.5,
        "target - covisitation": 1.0,
    }


def test_by_method():
    kept = {"target": 1, "popularity": 2, "differences": {"target - popularity": 3}}
    removed = {"target": 4, "popularity": 5, "differences": {"target - popularity": 6}}
    assert by_method({"seen_kept": kept, "seen_removed": removed}) == {
        "target": {"seen_kept": 1, "seen_removed": 4},
        "popularity": {"seen_kept": 2, "seen_removed": 5},
        "differences": {"target - popularity": {"seen_kept": 3, "seen_removed": 6}},
    }
