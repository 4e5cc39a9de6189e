"""What makes two lists equal, and how much lists share that are not."""

import numpy as np
import pytest

from atspeed_jax.serving.lists import Lists, agreement, catalog_changes, differing, overlap


def lists(*users) -> Lists:
    """Users as lists of (codes or None for an invalid place, score)."""
    return Lists(
        np.array([[codes or (0, 0) for codes, _ in user] for user in users]),
        np.array([[score for _, score in user] for user in users]),
        np.array([[codes is not None for codes, _ in user] for user in users]),
    )


ONE = [((4, 7), -1.0), ((2, 8), -2.0), (None, -1e30)]


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (0, ((4, 8), -1.0), True),
        (0, ((2, 8), -1.0), True),
        (1, ((2, 8), -2.0 - 9e-5), False),
        (1, ((2, 8), -2.0 - 2e-4), True),
        (1, ((2, 8), np.nan), True),
        (1, (None, -2.0), True),
        (2, ((5, 9), -1e30), True),
        (2, (None, np.nan), False),
    ],
)
def test_lists_differ_in_codes_places_or_scores(place, value, expected):
    other = [*ONE]
    other[place] = value
    a, b = lists(ONE, ONE), lists(ONE, other)
    assert differing(a, b).tolist() == differing(b, a).tolist() == [False, expected]


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [
        ([(1, 1), (2, 2), (3, 3)], [(3, 3), (9, 9), (1, 1)], 2 / 3),
        ([(1, 1), None, None], [(1, 1), (2, 2), None], 0.5),
        ([(1, 1), (2, 2), None], [(1, 1), None, None], 0.5),
        ([None, None], [None, None], 1.0),
        ([(0, 0), None], [None, None], 0.0),
        ([(1, 2), (2, 1)], [(1, 1), (2, 2)], 0.0),
    ],
)
def test_overlap(a, b, share):
    """Users are kept apart: the second has the lists the other way round."""
    first, second = ([(codes, -1.0) for codes in user] for user in (a, b))
    assert overlap(lists(first, second), lists(second, first)).tolist() == pytest.approx([share, share])


def test_agreement():
    """Items shared wherever they are, gaps of these alone, and the same list whatever its scores."""
    same = [((4, 7), -1.5), ((2, 8), -2.0), (None, -3.0)]
    moved = [((2, 8), -1.0), ((9, 9), -1.5), ((4, 7), -2.0)]
    nothing = [((5, 5), -1.0), (None, 0.0), (None, 0.0)]
    found = agreement(lists(same, moved, nothing), lists(ONE, ONE, ONE))
    assert found.same_list.tolist() == [1, 0, 0]
    assert found.items_shared.tolist() == pytest.approx([1, 2 / 3, 0])
    assert found.score_gap.tolist() == [0.25, 1.0, 0]
    assert found.largest_gap.tolist() == [0.5, 1.0, 0]
    assert found.figures == {
        "same_list": pytest.approx(1 / 3),
        "items_shared": pytest.approx(5 / 9),
        "score_gap": pytest.approx(1.25 / 3),
        "largest_gap": 1.0,
    }


def test_what_another_catalog_changes():
    before, after = np.array([[3, 1], [2, -1], [0, 1]]), np.array([[3, 1], [7, 2], [0, -1]])
    changed, new = catalog_changes(before, after, 7)
    assert (changed, new) == (pytest.approx(2 / 3), pytest.approx(1 / 5))
    assert catalog_changes(before, before, 7) == (0, 0)
