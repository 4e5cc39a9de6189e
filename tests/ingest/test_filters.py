import pytest

from atspeed_jax.ingest.filters import apply_filters, drop_few_trained, sizes, told
from atspeed_jax.ingest.settings import Filters, IngestError


def left(connection):
    return connection.execute("FROM events ORDER BY ALL").fetchall()


def test_repeats(connection, events):
    rows = [(0, 0, 1), (0, 0, 3), (0, 1, 2), (1, 0, 5)]
    for repeats, expected in (
        ("all", rows),
        ("first", [(0, 0, 1), (0, 1, 2), (1, 0, 5)]),
        ("last", [(0, 0, 3), (0, 1, 2), (1, 0, 5)]),
    ):
        events(rows)
        steps = apply_filters(connection, Filters(repeats=repeats), titled=False)
        assert left(connection) == expected
        assert steps == ([] if repeats == "all" else [(f"the {repeats} of each user and item", 3, 2, 2)])


def test_core_is_repeated_until_nothing_changes(connection, events):
    # Item 2 falls first, then user 2, who has one event left, then item 1, then nobody.
    rows = [(0, 0, 1), (0, 3, 2), (1, 0, 1), (1, 3, 2), (2, 1, 1), (2, 2, 2), (1, 1, 3)]
    events(rows)
    steps = apply_filters(connection, Filters(user_core=2, item_core=2), titled=False)
    assert left(connection) == [(0, 0, 1), (0, 3, 2), (1, 0, 1), (1, 3, 2)]
    assert steps == [("users of 2 and items of 2 events", 4, 2, 2)]
    events([(user, item, 0) for user in range(9) for item in (user, user + 1)])  # a chain falls from both ends
    with pytest.raises(IngestError, match="0 events of 0 users"):
        apply_filters(connection, Filters(user_core=2, item_core=2), titled=False)
    events(rows)
    apply_filters(connection, Filters(user_core=3), titled=False)
    assert left(connection) == [(1, 0, 1), (1, 1, 3), (1, 3, 2)]


def test_core_that_leaves_nothing_is_refused(connection, events):
    events([(0, 0, 1)])
    with pytest.raises(IngestError, match=r"no event is left: users of 2 and items of 0 events: 0 events.*lower"):
        apply_filters(connection, Filters(user_core=2), titled=False)


def test_items_without_text(connection, events):
    connection.execute("CREATE TABLE items AS FROM (VALUES (0, 'a'), (1, 'b'), (2, 'c')) t(i, text)")
    connection.execute("CREATE TABLE item_texts AS FROM (VALUES ('a', 'A', NULL), ('b', ' ', '')) t(name, title, text)")
    events([(0, 0, 1), (0, 1, 1), (0, 2, 1)])
    steps = apply_filters(connection, Filters(need_text=True), titled=True)
    assert (left(connection), steps) == ([(0, 0, 1)], [("items with text", 1, 1, 1)])
    with pytest.raises(IngestError, match="no item file is given: give --items"):
        apply_filters(connection, Filters(need_text=True), titled=False)
    connection.execute("ALTER TABLE item_texts DROP title; ALTER TABLE item_texts DROP text")
    with pytest.raises(IngestError, match="neither title nor text"):
        apply_filters(connection, Filters(need_text=True), titled=True)


def test_sizes_in_words(connection, events):
    events([(0, 0, 1), (0, 1, 1), (1, 0, 1)])
    assert sizes(connection) == (3, 2, 2)
    assert told([("read", 3000, 2, 2)]) == "read: 3,000 events of 2 users and 2 items"


def test_users_who_train_too_little_are_dropped_whole(connection, events):
    rows = [(0, 0, 1), (0, 1, 2), (0, 2, 9), (1, 0, 1), (1, 1, 9), (2, 0, 9)]
    events(rows)
    assert drop_few_trained(connection, "(t >= 9)::INTEGER", 0) == []
    assert drop_few_trained(connection, "(t >= 9)::INTEGER", 2) == [("users of 2 training events", 3, 1, 3)]
    assert left(connection) == rows[:3]
    with pytest.raises(IngestError, match=r"no event is left: users of 3 training events: 0 events.*lower min_train"):
        drop_few_trained(connection, "(t >= 9)::INTEGER", 3)
