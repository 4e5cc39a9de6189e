"""What a recommender makes of histories, and what it refuses, by a stand-in."""

import re

import numpy as np
import pytest

from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.filter_file import FilterFileError
from atspeed_jax.serving.recommender import HistoryError, Recommendations, Recommender

ITEMS = 40


class StandIn:
    """Lists of two places, the second empty for users with a history; keeps the users."""

    def __init__(self):
        self.users = []

    def __call__(self, users):
        self.users += users
        items = [[7, 8] if not len(user.items) else [int(user.items[-1]), -1] for user in users]
        scores = [[-0.5, -1.5] if not len(user.items) else [-0.25, -np.inf] for user in users]
        return np.array(items), np.array(scores, np.float32)


def test_lists_are_those_of_the_histories_in_order():
    lists = StandIn()
    found = Recommender(lists, ITEMS)([[12, 7], [], (3,), np.array([1, 2], np.uint8)])
    assert found == Recommendations([[7], [7, 8], [3], [2]], [[-0.25], [-0.5, -1.5], [-0.25], [-0.25]])
    assert [user.items.tolist() for user in lists.users] == [[12, 7], [], [3], [1, 2]]
    assert type(found.items[0][0]) is int
    assert type(found.scores[0][0]) is float


def test_histories_may_be_one_array():
    assert Recommender(StandIn(), ITEMS)(np.array([[1, 2], [3, 4]])).items == [[2], [4]]


def test_nobody_gets_no_list():
    assert Recommender(StandIn(), ITEMS)([]) == Recommendations([], [])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (7, "histories is 7: expected one history per user, such as [[12, 7], [3]]"),
        ("12 7", "histories is '12 7': expected one history per user"),
        ({"anna": [1]}, "histories is {'anna': [1]}: expected one history per user"),
        ([12, 7], "histories[0] is 12: expected a sequence of item numbers; for one user give [[12, 7]]"),
        ([[1], "12"], "histories[1] is '12': expected a sequence of item numbers"),
        ([[1], None], "histories[1] is None: expected a sequence of item numbers"),
        ([[[1], [2]]], "histories[0] is [[1], [2]]: expected a sequence of item numbers"),
        ([[1, [2]]], "histories[0] is [1, [2]]: expected a sequence of item numbers"),
        ([[1.0]], "histories[0] is [1.0]: expected whole numbers, one for each item"),
        ([["1"]], "histories[0] is ['1']: expected whole numbers"),
        ([[True]], "histories[0] is [True]: expected whole numbers"),
        (
            [[0], [3, 40]],
            "histories[1] holds item 40, which is not in the catalog, whose items are 0 to 39; item",
        ),
        ([[-1]], "histories[0] holds item -1, which is not in the catalog"),
        ([[2**63]], f"histories[0] holds item {2**63}, which is not in the catalog"),
        ([[2**70]], f"histories[0] is [{2**70}]: expected whole numbers"),
    ],
)
def test_what_is_no_history_is_refused_by_its_place(histories, message):
    lists = StandIn()
    with pytest.raises(HistoryError, match=re.escape(message)):
        Recommender(lists, ITEMS)(histories)
    assert not lists.users


NAMES = ItemNames(ITEMS, tuple(f"B{item:02}" for item in range(ITEMS)))


def test_histories_and_lists_are_of_names():
    lists = StandIn()
    recommend = Recommender(lists, NAMES, {3: "Soap"})
    found = recommend([["B12", "B07"], [], np.array(["B03"])])
    assert found.items == [["B07"], ["B07", "B08"], ["B03"]]
    assert [user.items.tolist() for user in lists.users] == [[12, 7], [], [3]]
    assert recommend.titles == {"B03": "Soap"}


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([["B01"], ["B03", "B99"]], "histories[1] holds item 'B99', which is not in the catalog, whose 40 items are"),
        (["B01"], "histories[0] is 'B01': expected a sequence of items; for one user give [[...]]"),
        ([[1.5]], "histories[0]: item 1.5 is not the name of an item"),
    ],
)
def test_what_is_no_history_of_names_is_refused(histories, message):
    with pytest.raises(HistoryError, match=re.escape(message)):
        Recommender(StandIn(), NAMES)(histories)


def test_lists_per_user_go_with_the_histories():
    lists = StandIn()
    recommend = Recommender(lists, NAMES)
    recommend([["B12"], []], allow=[["B01", "B03"], None], exclude=[None, ["B04"]])
    assert [None if user.allow is None else user.allow.tolist() for user in lists.users] == [[1, 3], None]
    assert [user.exclude.tolist() for user in lists.users] == [[], [4]]
    for given, message in (
        ({"allow": [["B01"]]}, "allow is [['B01']]: expected a list of items, or None, for each of 2 users"),
        ({"exclude": [["B01"], ["B99"]]}, "exclude[1]: item 'B99' is not in the catalog"),
        ({"exclude": [["B01"], "B01"]}, "exclude[1] is 'B01': expected a list of items"),
    ):
        with pytest.raises(FilterFileError, match=re.escape(message)):
            recommend([["B12"], []], **given)


def test_a_recommender_of_a_function_has_no_other_catalog():
    with pytest.raises(ValueError, match="was made of a function alone"):
        Recommender(StandIn(), ITEMS).with_catalog("new.json")
