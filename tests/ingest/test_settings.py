import pytest

from atspeed_jax.ingest.settings import Filters, IngestError, Split


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Filters(user_core=-1), "user_core is -1; expected 0 or more"),
        (lambda: Filters(item_core=-1), "item_core is -1; expected 0 or more"),
        (lambda: Filters(repeats="some"), "repeats is 'some'; expected one of all, first, last"),
        (lambda: Filters(since=5, until=5), r"since \(5\) must be before until \(5\)"),
        (lambda: Split("random"), "split is 'random'; expected one of time, leave_one_out, rolling"),
        (lambda: Split(valid_share=0), "both must be above 0"),
        (lambda: Split(test_share=float("nan")), "both must be above 0"),
        (lambda: Split(valid_share=0.5, test_share=0.5), "their sum below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(IngestError, match=message):
        make()


def test_rolling_events_are_asked_one_by_one():
    assert [Split(how).rows for how in ("time", "leave_one_out", "rolling")] == [False, False, True]
