"""Parts of Beam's pipelines by themselves; needs tests/beam.txt."""

import pytest

pytest.importorskip("apache_beam")

from atspeed_jax.ingest import beam
from atspeed_jax.ingest.settings import Filters

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("place", range(7))
def test_the_key_and_the_place_in_it_are_found(place):
    assert beam._find([(9, 3), (4, 2), (6, 2)], [place]) == [
        [(4, 0), (4, 1), (6, 0), (6, 1), (9, 0), (9, 1), (9, 2)][place]
    ]


def test_users_are_held_out_from_three_events_on():
    three, two = [("u", "b", 2), ("u", "a", 2), ("u", "c", 1)], [("u", "b", 2), ("u", "a", 2)]
    assert beam._last_two(("u", three), 1) == [("u", "c", 1, 0), ("u", "a", 2, 1), ("u", "b", 2, 2)]
    assert [event[3] for event in beam._last_two(("u", two), 2)] == [0, 0]
    assert beam._last_two(("u", three), 2) == []


def test_cuts_part_the_events_of_a_user():
    events = [("u", "a", 1), ("u", "a", 5), ("u", "a", 9)]
    assert [event[3] for event in beam._by_time(("u", events), 1, (5, 9))] == [0, 1, 2]
    assert beam._by_time(("u", events), 2, (5, 9)) == []


def test_steps_are_those_that_are_asked_for():
    assert beam.step_names(Filters(), None) == ["read", "repeated events removed"]
    assert beam.step_names(Filters(min_rating=1.0, repeats="last"), frozenset()) == [
        "read",
        "rated and in the time window",
        "repeated events removed",
        "items with text",
        "the last of each user and item",
    ]
