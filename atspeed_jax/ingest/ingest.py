"""From a raw log to a directory of numbered, filtered and split interactions."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from atspeed_jax.ingest.filters import Step, apply_filters, drop_few_trained, told
from atspeed_jax.ingest.formats import items_form, log_form, open_as, with_columns
from atspeed_jax.ingest.items import load_items
from atspeed_jax.ingest.log import load_log
from atspeed_jax.ingest.settings import Columns, IngestError, IngestSettings
from atspeed_jax.ingest.splits import check_split, split_of_event
from atspeed_jax.ingest.store import write_histories, write_tables
from atspeed_jax.ingest.tables import Table, quoted
from atspeed_jax.ingest.times import moment
from atspeed_jax.items.data_directory import FORMAT, RECORD, SPLITS
from atspeed_jax.utils.building import built
from atspeed_jax.utils.files import write_json

_DAY = 24 * 3600 * 1000  # milliseconds


@dataclass(frozen=True)
class Filtered:
    """What was made of a log: the tables `events` (u, i, t), `users`, `items` and, if
    an item file is given, `item_texts` of the database.

    Attributes:
      steps: what each filter has left.
      warnings: what looks wrong.
      split: SQL expression of the split of a row of `events`.
      cut: what was cut where.
    """

    steps: list[Step]
    warnings: list[str]
    split: str
    cut: dict


def ingest(
    interactions: str,
    items: str | None,
    output: Path,
    config: IngestSettings,
    say: Callable[[str], None],
    filter_log: Callable[..., Filtered] | None = None,
) -> dict:
    """Reads a log and, if given, an item file, and writes the directory `output`.

    Everything is written beside `output`, which gets its name at the end. An error
    leaves nothing behind.

    Args:
      interactions: file of the log, or a pattern of files such as log/*.csv.
      items: file of the items, or a pattern; None for none.
      output: must not exist yet, or be empty.
      config: columns, filters, split and limits.
      say: gets a line on each step.
      filter_log: filters and splits the log, as `by_duckdb` does; None for that.

    Returns:
      the record that is stored as ingest.json.

    Raises:
      IngestError: a file, a row or a setting that cannot be used, or an output that
        exists.
    """
    try:
        with built(output) as building, _engine(building, config) as connection:
            log, texts, columns = _tables(connection, interactions, items, building, config, say)
            filter_log = filter_log or by_duckdb
            filtered = filter_log(connection, log, texts, dataclasses.replace(config, columns=columns), say)
            _check_several(filtered.steps)
            counts = write_tables(connection, building, filtered.split)
            check_split(counts, config.split, filtered.cut, _span(connection))
            say("split: " + ", ".join(f"{name} {counts[number]:,}" for number, name in enumerate(SPLITS)))
            write_histories(building)
            warnings = [*filtered.warnings, *_single_events(connection, config.filters.item_core), *_future(connection)]
            for warning in warnings:
                say(f"warning: {warning}")
            record = _record(output.name, log, texts, config, filtered, counts) | {"warnings": warnings}
            write_json(building / RECORD, record)
    except FileExistsError as error:
        raise IngestError(f"--output={error}") from error
    except OSError as error:
        raise IngestError(f"--output={output} cannot be written ({error}); give a place you may write to.") from error
    except duckdb.OutOfMemoryException as error:
        raise IngestError(f"memory ran out ({str(error).splitlines()[0]}); raise --memory_gb.") from error
    return record


def by_duckdb(
    connection: duckdb.DuckDBPyConnection,
    log: Table,
    texts: Table | None,
    config: IngestSettings,
    say: Callable[[str], None],
) -> Filtered:
    """Filters and splits a log in the database of this machine."""
    steps: list[Step] = []

    def add(more: list[Step]) -> None:
        for step in more:
            say(told([step]))
        steps.extend(more)

    loaded = load_log(connection, log, config.columns, config.filters, say, config.files.time_format)
    add(loaded.steps)
    warnings = []
    if texts is not None:
        warnings = load_items(connection, texts, config.columns, loaded.columns["item"], say)
    add(apply_filters(connection, config.filters, titled=texts is not None))
    split, cut = split_of_event(connection, config.split)
    add(drop_few_trained(connection, split, config.filters.min_train))
    return Filtered(steps, warnings, split, cut)


def _check_several(steps: list[Step]) -> None:
    """Raises IngestError for one user or one item: recommendation needs a choice."""
    for count, what in zip(steps[-1][2:], ("user", "item"), strict=True):
        if count == 1:
            raise IngestError(
                f"one {what} is left: {told(steps)}; several users and items are needed to recommend. Check "
                f"--{what}=NAME, the column of the {what}, and the filters."
            )


def _span(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """The first and the last time of the table `events`."""
    return connection.execute("SELECT min(t), max(t) FROM events").fetchall()[0]


def _single_events(connection: duckdb.DuckDBPyConnection, item_core: int) -> list[str]:
    """A warning of users with one event. It advises a filter only if events are left."""
    users, single = connection.execute(
        "SELECT count(*), count(*) FILTER (n = 1) FROM (SELECT count(*) AS n FROM events GROUP BY u)"
    ).fetchall()[0]
    if not single:
        return []
    if single == users:
        return [f"each of the {users:,} users has one event, so that no event has a history; check the column of users"]
    if users - single == 1:
        return [f"{single:,} users have one event, and one user has more; check the column of users"]
    then = f", and then items of fewer than {item_core} events" if item_core > 1 else ""
    return [f"{single:,} users have one event; --user_core=2 leaves them out{then}"]


def _future(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """A warning of events of tomorrow and later, which a split by time takes for the newest."""
    tomorrow = round(1000 * time.time()) + _DAY
    count, last = connection.execute(f"SELECT count(*), max(t) FROM events WHERE t > {tomorrow}").fetchall()[0]
    if not count:
        return []
    return [
        f"{count:,} events are in the future, up to {moment(last)}; check the times, or drop such events by --until"
    ]


def _tables(
    connection: duckdb.DuckDBPyConnection,
    interactions: str,
    items: str | None,
    building: Path,
    config: IngestSettings,
    say: Callable[[str], None],
) -> tuple[Table, Table | None, Columns]:
    """Opens the log and the item file in their forms.

    Returns:
      the tables, and the columns that the user or the form names.
    """
    form = log_form(interactions, config.files)
    if form.name not in ("auto", "table"):
        say(f"{interactions}: read as {form.name}")
    columns = with_columns(config.columns, form)
    log = open_as(connection, interactions, form, config.files, building)
    if items is None:
        return log, None, columns
    of_items = items_form(items, config.files)
    columns = with_columns(columns, of_items)
    return log, open_as(connection, items, of_items, config.files, building), columns


@contextlib.contextmanager
def _engine(directory: Path, config: IngestSettings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database in a directory, and removes its files at the end."""
    file, spill = directory / "database", directory / "spill"
    with duckdb.connect(str(file)) as connection:
        for setting in (
            f"memory_limit='{config.limits.memory_gb}GB'",
            f"threads={config.limits.threads or os.cpu_count() or 1}",
            f"temp_directory={quoted(str(spill))}",
            "TimeZone='UTC'",
            "enable_progress_bar=false",
            "autoinstall_known_extensions=false",  # nothing is ever downloaded
        ):
            connection.execute(f"SET {setting}")
        yield connection
    for left in (*directory.glob("database*"), *directory.glob("literals-*")):
        left.unlink()
    shutil.rmtree(spill, ignore_errors=True)


def _record(
    name: str, log: Table, texts: Table | None, config: IngestSettings, filtered: Filtered, counts: dict[int, int]
) -> dict:
    """What ingest.json says."""
    events, users, items = filtered.steps[-1][1:]
    sources = [file for table in (log, texts) if table is not None for file in table.files]
    settings = dataclasses.asdict(config)
    settings.pop("limits")
    return {
        "format": FORMAT,
        "name": name,
        "split": config.split.how,
        "rows": config.split.rows,
        "users": users,
        "items": items,
        "interactions": events,
        "splits": {split: counts[number] for number, split in enumerate(SPLITS)},
        "cut": filtered.cut,
        "steps": [dict(zip(("what", "interactions", "users", "items"), step, strict=True)) for step in filtered.steps],
        "settings": settings,
        "sources": [{"file": str(file.resolve()), "bytes": file.stat().st_size} for file in sources],
    }
