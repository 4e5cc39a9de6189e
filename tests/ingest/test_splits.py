import pytest

from atspeed_jax.ingest.settings import IngestError, Split
from atspeed_jax.ingest.splits import check_split, split_of_event

DAY = 86_400_000


def splits(connection, split):
    sql, cut = split_of_event(connection, split)
    return [row[0] for row in connection.execute(f"SELECT {sql} FROM events ORDER BY u, t, i").fetchall()], cut


@pytest.mark.parametrize("how", ["time", "rolling"])
@pytest.mark.parametrize("step", [1, DAY // 3, DAY, 7 * DAY])
def test_two_moments_part_the_events_of_all_users(connection, events, how, step):
    events([(n % 3, 0, -5 * step + n * step) for n in (3, 1, 2, 0, 9, 8, 7, 6, 5, 4)])
    found, cut = splits(connection, Split(how, valid_share=0.2, test_share=0.1))
    assert cut == {"valid_from": 2 * step, "test_from": 4 * step}
    assert found == [0, 0, 0, 2, 0, 0, 1, 0, 0, 1]


def test_the_last_two_of_each_user(connection, events):
    events([(0, 0, 1), (0, 1, 2), (1, 5, 1), (1, 4, 1), (1, 3, 1), (2, 0, 1)])
    assert splits(connection, Split("leave_one_out")) == ([0, 0, 0, 1, 2, 0], {})


def test_an_empty_split_is_refused():
    with pytest.raises(IngestError, match=r"'leave_one_out' leaves valid and test empty \(train 1, .*no user has 3"):
        check_split({0: 1}, Split("leave_one_out"), {}, (0, 9))
    with pytest.raises(IngestError, match=r"'time' leaves valid empty .*many events have one time") as caught:
        check_split({0: 1, 2: 1}, Split(), {"valid_from": 2 * DAY, "test_from": 2 * DAY + 1000}, (DAY, 3 * DAY))
    assert "valid begins at 1970-01-03 and test begins at 1970-01-03 00:00:01, of events from 1970-01-02 to" in str(
        caught.value
    )
    assert "{" not in str(caught.value)
    for flag in ("--valid_share", "--test_share", "--split=leave_one_out"):
        assert flag in str(caught.value)
    check_split({0: 1, 1: 1, 2: 1}, Split(), {}, (0, 9))
