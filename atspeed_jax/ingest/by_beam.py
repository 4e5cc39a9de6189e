"""Ingestion of a log beyond one machine: Beam filters and splits, this machine stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from atspeed_jax.ingest import beam
from atspeed_jax.ingest.columns import said
from atspeed_jax.ingest.filters import Step, names_with_text, sizes, told
from atspeed_jax.ingest.given_files import kind_of
from atspeed_jax.ingest.ingest import Filtered
from atspeed_jax.ingest.items import load_items
from atspeed_jax.ingest.log import drops_unknown_times, head_of, keys_of_names, log_columns, number_names
from atspeed_jax.ingest.settings import Filters, IngestError, IngestSettings
from atspeed_jax.ingest.tables import Table, column, name_sql, quoted
from atspeed_jax.ingest.times import milliseconds


def by_beam(options: Sequence[str], directory: Path) -> Callable[..., Filtered]:
    """Returns what filters and splits a log as `ingest.by_duckdb` does.

    Args:
      options: flags of Beam, such as --runner=DirectRunner.
      directory: exists, and every worker sees it; it gets the events between pipelines.
    """

    def filter_log(
        connection: duckdb.DuckDBPyConnection,
        log: Table,
        texts: Table | None,
        config: IngestSettings,
        say: Callable[[str], None],
    ) -> Filtered:
        if kind_of(log.files[0]) != "parquet":
            raise IngestError(f"{log.name}: Beam reads parquet; write the log as parquet, or leave out --runner.")
        found = log_columns(log, config.columns, config.filters)
        say(said(log, found))
        time, times = milliseconds(connection, head_of(log), found["time"], config.files.time_format)
        say(f"{log.name}: times are {times}")
        whole = {role: found[role] in log.whole for role in ("user", "item")}
        warnings, with_text = _texts(connection, log, texts, config, found["item"], say)
        if with_text is not None and whole["item"]:
            with_text = frozenset(map(int, with_text))
        runs = beam.Runs(options, directory, [pa.int64() if whole[role] else pa.string() for role in ("user", "item")])
        after = float("-inf") if drops_unknown_times(config.filters) else 0
        read = beam.from_files(log.files, list(found.values()), _selected(connection, log, found, time), after)
        steps, pattern = _filter(runs, read, config.filters, with_text)
        for step in steps:
            say(told([step]))
        split = beam.split_events(config.split, config.filters.min_train, steps[-1][1])
        pattern, metrics = runs.run(beam.from_events(pattern), split)
        _load(connection, pattern, whole)
        if config.filters.min_train:
            steps.append((f"users of {config.filters.min_train} training events", *sizes(connection)))
            say(told(steps[-1:]))
        if not steps[-1][1]:
            raise IngestError(f"no event is left: {told(steps)}; change the filters.")
        cut = {name: metrics[name] for name in ("valid_from", "test_from") if name in metrics}
        return Filtered(steps, warnings, "split", cut)

    return filter_log


def _selected(connection: duckdb.DuckDBPyConnection, log: Table, found: dict[str, str], time: str) -> str:
    """The query of a batch of the log."""
    names = [name_sql(connection, log, found[role]) for role in ("user", "item")]
    rating = f"try_cast({column(found['rating'])} AS DOUBLE)" if "rating" in found else "0::DOUBLE"
    return f"SELECT {', '.join(names)}, {time}, {rating} FROM batch"


def _texts(
    connection: duckdb.DuckDBPyConnection,
    log: Table,
    texts: Table | None,
    config: IngestSettings,
    item: str,
    say: Callable[[str], None],
) -> tuple[list[str], frozenset | None]:
    """Makes the table `item_texts`.

    Returns:
      the warnings, and the items that have a text; None where they are not asked for.
    """
    if texts is None:
        if config.filters.need_text:
            names_with_text(connection, titled=False)
        return [], None
    connection.execute(f"CREATE TABLE items AS SELECT DISTINCT trim({column(item)}::VARCHAR) AS text FROM {log.sql}")
    warnings = load_items(connection, texts, config.columns, item, say)
    connection.execute("DROP TABLE items")
    if not config.filters.need_text:
        return warnings, None
    names = connection.execute(names_with_text(connection, titled=True)).fetchall()
    return warnings, frozenset(row[0] for row in names)


def _filter(runs: beam.Runs, read, filters: Filters, with_text: frozenset | None) -> tuple[list[Step], str]:
    """Runs the filters before the split.

    Returns:
      what each has left, and a pattern of the files of the events.
    """
    has_core = max(filters.user_core, filters.item_core) > 1
    core, rows = beam.keep_core(filters), beam.keep_rows(filters, with_text)
    pattern, metrics = runs.run(read, lambda events: beam.unsplit(core(rows(events)) if has_core else rows(events)))
    steps = [_step(name, name, metrics) for name in beam.step_names(filters, with_text)]
    if has_core:
        while metrics.get(beam.DROPPED):
            pattern, metrics = runs.run(beam.from_events(pattern), lambda events: beam.unsplit(core(events)))
        what = f"users of {filters.user_core} and items of {filters.item_core} events"
        steps.append(_step(what, beam.CORE, metrics))
    if not steps[-1][1]:
        raise IngestError(f"no event is left: {told(steps)}; change the filters.")
    return steps, pattern


def _step(what: str, name: str, metrics: dict[str, int]) -> Step:
    counts = [metrics.get(f"{name}/{place}", 0) for place in range(3)]
    return what, counts[0], counts[1], counts[2]


def _load(connection: duckdb.DuckDBPyConnection, pattern: str, whole: dict[str, bool]) -> None:
    """Makes `users`, `items` and `events` (u, i, t, split) of the files of a pipeline."""
    connection.execute(
        f"CREATE TABLE raw AS SELECT user::VARCHAR AS user, item::VARCHAR AS item, t, split "
        f"FROM read_parquet({quoted(pattern)})"
    )
    keys_of_names(connection, "")
    number_names(connection, "", whole, more=", split")
