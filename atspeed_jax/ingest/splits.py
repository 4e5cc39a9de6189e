"""Splits the events in the database into train (0), valid (1) and test (2)."""

from __future__ import annotations

import duckdb

from atspeed_jax.ingest.settings import IngestError, Split
from atspeed_jax.ingest.times import moment
from atspeed_jax.items.data_directory import SPLITS

DAY = 86_400_000  # milliseconds
LEAST_HELD_OUT = 3  # events of a user of whom two are held out


def split_of_event(connection: duckdb.DuckDBPyConnection, split: Split) -> tuple[str, dict]:
    """Finds the split of each event.

    Args:
      connection: with the table `events` (u, i, t).
      split: how they are split.

    Returns:
      (an SQL expression of the split of a row of `events`, what was cut where).
    """
    if split.how == "leave_one_out":
        last = "row_number() OVER (PARTITION BY u ORDER BY t DESC, i DESC)"
        total = "count(*) OVER (PARTITION BY u)"
        return f"CASE WHEN {total} < {LEAST_HELD_OUT} THEN 0 ELSE greatest(0, 3 - {last}) END", {}
    found = connection.execute("SELECT count(*) FROM events").fetchone()
    assert found is not None
    cuts = [_time_at(connection, place) for place in cut_places(split, found[0])]
    return f"(t >= {cuts[0]})::INTEGER + (t >= {cuts[1]})::INTEGER", {"valid_from": cuts[0], "test_from": cuts[1]}


def cut_places(split: Split, count: int) -> list[int]:
    """Returns the places, among `count` events in time order, where valid and test begin."""
    shares = (1 - split.valid_share - split.test_share, 1 - split.test_share)
    return [min(count - 1, round(count * share)) for share in shares]


def _time_at(connection: duckdb.DuckDBPyConnection, place: int) -> int:
    """The time of the event at this place in time order: first its day, then the moment
    in it, so that only the events of one day are sorted.
    """
    before = 0
    days = connection.execute(f"SELECT t // {DAY} AS day, count(*) FROM events GROUP BY day ORDER BY day").fetchall()
    for day, count in days:
        if before + count > place:
            found = connection.execute(
                f"SELECT t FROM events WHERE t // {DAY} = {day} ORDER BY t LIMIT 1 OFFSET {place - before}"
            ).fetchone()
            assert found is not None
            return found[0]
        before += count
    raise AssertionError(f"place {place} of {before} events")


def check_split(counts: dict[int, int], split: Split, cut: dict, span: tuple[int, int]) -> None:
    """Checks that no split is empty.

    Args:
      counts: events of each split.
      split: how they are split.
      cut: where, as `split_of_event` returns it.
      span: the first and the last time of all events.

    Raises:
      IngestError: a split is; it says what to change.
    """
    empty = [name for number, name in enumerate(SPLITS) if not counts.get(number)]
    if empty:
        found = ", ".join(f"{name} {counts.get(number, 0):,}" for number, name in enumerate(SPLITS))
        raise IngestError(
            f"the split {split.how!r} leaves {' and '.join(empty)} empty ({found} events): {_why(split, cut, span)}."
        )


def _why(split: Split, cut: dict, span: tuple[int, int]) -> str:
    """Says why a split is empty and what to do."""
    if split.how == "leave_one_out":
        return f"no user has {LEAST_HELD_OUT} events; take --split=time"
    if span[0] == span[1]:
        return f"all events have one time ({moment(span[0])}); give their times, or take --split=leave_one_out"
    begins = " and ".join(f"{name.removesuffix('_from')} begins at {moment(t)}" for name, t in cut.items())
    return (
        f"{begins}, of events from {moment(span[0])} to {moment(span[1])}, so that many events have one time or a "
        "share is too small; change --valid_share or --test_share, or take --split=leave_one_out"
    )
