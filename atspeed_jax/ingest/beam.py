"""Filters and splits a log by Apache Beam, on as many machines as its runner has.

The log is parquet. The steps are those of `ingest.by_duckdb`, and so is what they
leave. The events that are left come back as parquet; the database of this machine
numbers and stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]
import duckdb
import pyarrow as pa
from apache_beam.metrics import Metrics, MetricsFilter  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]

from atspeed_jax.ingest.settings import Filters, IngestError, Split
from atspeed_jax.ingest.splits import DAY, LEAST_HELD_OUT, cut_places
from atspeed_jax.ingest.times import UNKNOWN_TIMES

ROUNDS = 3  # of the k-core in one pipeline; another follows until a round drops nothing
DROPPED, CORE = "dropped by the last round", "core"
_EVENT = [("t", pa.int64()), ("split", pa.int8())]


class Runs:
    """Pipelines on one runner, one after the other.

    Attributes:
      options: flags of Beam, the runner among them.
      directory: for the events between two pipelines; every worker sees it.
      schema: of these events: user, item, t, split.
    """

    def __init__(self, options: Sequence[str], directory: Path, names: Sequence[pa.DataType]):
        self.options, self.directory, self._number = tuple(options), directory, 0
        self.schema = pa.schema([*zip(("user", "item"), names, strict=True), *_EVENT])

    def run(self, read: Callable[[Any], Any], steps: Callable[[Any], Any]) -> tuple[str, dict[str, int]]:
        """Runs a pipeline.

        Args:
          read: a pipeline -> its events (user, item, t).
          steps: events -> events (user, item, t, split).

        Returns:
          a pattern of the files of the events, and the metrics by name.
        """
        self._number += 1
        prefix = str(self.directory / f"events-{self._number}")
        pipeline = beam.Pipeline(options=PipelineOptions(list(self.options)))
        rows = steps(read(pipeline)) | beam.Map(
            lambda event: dict(zip(("user", "item", "t", "split"), event, strict=True))
        )
        _ = rows | beam.io.WriteToParquet(prefix, self.schema, file_name_suffix=".parquet")
        result = pipeline.run()
        result.wait_until_finish()
        found = result.metrics().query(MetricsFilter().with_namespace("ingest"))
        metrics = {one.key.metric.name: one.committed for one in found["counters"]}
        metrics |= {one.key.metric.name: one.committed.max for one in found["distributions"]}
        return f"{prefix}-*.parquet", metrics


def from_files(files: Sequence[Path], columns: Sequence[str], sql: str, after: float) -> Callable[[Any], Any]:
    """Reads a log.

    Args:
      files: of parquet.
      columns: that are read.
      sql: selects user, item, t and rating of the table `batch`, which has the columns.
      after: every time is after it.
    """

    def read(pipeline):
        tables = (
            pipeline
            | beam.Create([str(file) for file in files])
            | beam.io.ReadAllFromParquetBatched(columns=list(columns))
        )
        return tables | beam.ParDo(_Rows(sql, after))

    return read


def from_events(pattern: str) -> Callable[[Any], Any]:
    """Reads what a pipeline has written."""

    def read(pipeline):
        rows = pipeline | beam.io.ReadFromParquet(pattern, columns=["user", "item", "t"])
        return rows | beam.Map(lambda row: (row["user"], row["item"], row["t"]))

    return read


class _Rows(beam.DoFn):
    """Arrow tables -> (user, item, t, rating), in the words of DuckDB, as on one machine."""

    def __init__(self, sql: str, after: float):
        self._sql, self._after = sql, after

    def process(self, element: pa.Table) -> Iterator[tuple]:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone='UTC'; SET threads=1")
            connection.register("batch", element)
            result = connection.execute(self._sql)
            while rows := result.fetchmany(10_000):
                for row in rows:
                    if None in row:
                        raise IngestError(f"a row lacks user, item, time or rating: {row}; correct or remove it.")
                    if row[2] <= self._after:
                        raise IngestError(f"{row} is a row (user, item, ms since 1970, rating): {UNKNOWN_TIMES}.")
                    yield row


def step_names(filters: Filters, with_text: frozenset | None) -> list[str]:
    """Names of the steps of `keep_rows`, whose metrics are NAME/0, /1 and /2: events,
    users and items.
    """
    chosen = {
        "read": True,
        "rated and in the time window": (filters.min_rating, filters.since, filters.until) != (None, None, None),
        "repeated events removed": True,
        "items with text": with_text is not None,
        f"the {filters.repeats} of each user and item": filters.repeats != "all",
    }
    return [name for name, is_made in chosen.items() if is_made]


def keep_rows(filters: Filters, with_text: frozenset | None) -> Callable[[Any], Any]:
    """Rating, time window, equal events once, items with text, and repeats.

    Args:
      filters: what is kept.
      with_text: the items that have a title or a text; None to keep all.
    """
    low = float("-inf") if filters.since is None else filters.since
    high = float("inf") if filters.until is None else filters.until
    least = float("-inf") if filters.min_rating is None else filters.min_rating

    def steps(rows):
        events = (
            _counted(rows, "read")
            | "window" >> beam.Filter(lambda row: row[3] >= least and low <= row[2] < high)
            | "event" >> beam.Map(lambda row: (row[0], row[1], row[2]))
        )
        events = _counted(events, "rated and in the time window") | beam.Distinct()
        events = _counted(events, "repeated events removed")
        if with_text is not None:
            events = _counted(events | "text" >> beam.Filter(lambda event: event[1] in with_text), "items with text")
        if filters.repeats != "all":
            best = min if filters.repeats == "first" else max
            events = (
                events
                | beam.Map(lambda event: ((event[0], event[1]), event[2]))
                | beam.CombinePerKey(best)
                | "unpair" >> beam.Map(lambda pair: (*pair[0], pair[1]))
            )
            events = _counted(events, f"the {filters.repeats} of each user and item")
        return events

    return steps


def keep_core(filters: Filters) -> Callable[[Any], Any]:
    """ROUNDS rounds of the k-core. The metric DROPPED says what the last one dropped."""

    def steps(events):
        for number in range(ROUNDS):
            before = events
            few = (
                events
                | f"items {number}" >> beam.Map(lambda event: (event[1], 1))
                | f"count {number}" >> beam.CombinePerKey(sum)
                | f"few {number}" >> beam.Filter(lambda pair: pair[1] < filters.item_core)
                | f"names {number}" >> beam.Map(lambda pair: (pair[0], None))
            )
            events = (
                events
                | f"by user {number}" >> beam.Map(lambda event: (event[0], event))
                | f"of user {number}" >> beam.GroupByKey()
                | f"enough {number}" >> beam.FlatMap(_enough, filters.user_core)
                | f"items kept {number}" >> beam.Filter(lambda event, few: event[1] not in few, beam.pvalue.AsDict(few))
            )
        _ = (before, events) | beam.Flatten() | _Difference()
        return _counted(events, CORE)

    return steps


def unsplit(events):
    """Gives every event split 0."""
    return events | "unsplit" >> beam.Map(lambda event: (*event, 0))


def _enough(pair: tuple[Any, Iterable], least: int) -> list:
    events = list(pair[1])
    return events if len(events) >= least else []


class _Difference(beam.PTransform):
    """Counts the events that occur once in two collections, one of which is in the other."""

    def expand(self, input_or_inputs):
        counter = Metrics.counter("ingest", DROPPED)
        return (
            input_or_inputs
            | beam.Map(lambda event: (event, 1))
            | beam.CombinePerKey(sum)
            | beam.Filter(lambda pair: pair[1] == 1)
            | "dropped" >> beam.Map(lambda pair: counter.inc())
        )


def _counted(events, name: str):
    """Counts events, users and items in metrics `name/...`, and passes the events on."""
    counter = Metrics.counter("ingest", f"{name}/0")

    def count(event):
        counter.inc()
        return event

    for place in (0, 1):
        _count_names(events, name, place)
    return events | f"count {name}" >> beam.Map(count)


def _count_names(events, name: str, place: int) -> None:
    counter = Metrics.counter("ingest", f"{name}/{place + 1}")
    _ = (
        events
        | f"{name} {place}" >> beam.Map(lambda event: event[place])
        | f"{name} {place} once" >> beam.Distinct()
        | f"{name} {place} counted" >> beam.Map(lambda _: counter.inc())
    )


def split_events(split: Split, min_train: int, count: int) -> Callable[[Any], Any]:
    """Adds the split to each event, and drops users of too few training events.

    Args:
      split: how events are split.
      min_train: least training events of a user.
      count: of all events.
    """
    places = cut_places(split, count)

    def steps(events):
        by_user = events | "by user" >> beam.Map(lambda event: (event[0], event)) | beam.GroupByKey()
        if split.how == "leave_one_out":
            return by_user | beam.FlatMap(_last_two, min_train)
        days = events | beam.Map(lambda event: event[2] // DAY) | beam.combiners.Count.PerElement()
        wanted = days | beam.combiners.ToList() | "days" >> beam.Map(_find, places)
        inside = (
            events
            | "times" >> beam.Map(lambda event: event[2])
            | beam.Filter(lambda t, wanted: t // DAY in [day for day, _ in wanted], beam.pvalue.AsSingleton(wanted))
            | "per time" >> beam.combiners.Count.PerElement()
            | "all times" >> beam.combiners.ToList()
        )
        cuts = inside | "cuts" >> beam.Map(_cut, beam.pvalue.AsSingleton(wanted))
        return by_user | beam.FlatMap(_by_time, min_train, beam.pvalue.AsSingleton(cuts))

    return steps


def _find(counts: list[tuple[int, int]], places: Sequence[int]) -> list[tuple[int, int]]:
    """The key in which each place of the sorted events lies, and the place in it."""
    found = []
    for place in places:
        for key, count in sorted(counts):
            if place < count:
                found.append((key, place))
                break
            place -= count
    return found


def _cut(counts: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> list[int]:
    """The time at each wanted place of a day."""
    cuts = [_find([pair for pair in counts if pair[0] // DAY == day], [place])[0][0] for day, place in wanted]
    for name, cut in zip(("valid_from", "test_from"), cuts, strict=True):
        Metrics.distribution("ingest", name).update(cut)
    return cuts


def _by_time(pair: tuple[Any, Iterable], min_train: int, cuts: Sequence[int]) -> list[tuple]:
    events = [(*event, sum(event[2] >= cut for cut in cuts)) for event in pair[1]]
    return events if sum(event[3] == 0 for event in events) >= min_train else []


def _last_two(pair: tuple[Any, Iterable], min_train: int) -> list[tuple]:
    events = sorted(pair[1], key=lambda event: (event[2], event[1]))
    train = len(events) - 2 if len(events) >= LEAST_HELD_OUT else len(events)
    return [(*event, max(0, n - train + 1)) for n, event in enumerate(events)] if train >= min_train else []
