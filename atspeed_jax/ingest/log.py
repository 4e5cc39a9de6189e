"""Loads a log into the database: users and items get numbers, times one unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from atspeed_jax.ingest.columns import ITEM_COLUMNS, named_columns, need, said
from atspeed_jax.ingest.filters import sizes
from atspeed_jax.ingest.settings import Columns, Filters, IngestError
from atspeed_jax.ingest.tables import Table, column, name_sql
from atspeed_jax.ingest.text_files import explained
from atspeed_jax.ingest.times import UNKNOWN_TIMES, first_row, milliseconds

USUAL = {
    "user": ("user_id", "userid", "user", "reviewerid", "customer_id", "customer", "visitorid", "session_id", "uid"),
    "item": ITEM_COLUMNS,
    "time": (
        *("timestamp", "time", "unixreviewtime", "date", "datetime", "created_at", "event_time", "t_dat", "ts"),
        *("order_date", "ordered_at", "purchase_date", "purchased_at", "invoicedate", "event_timestamp", "bought_at"),
    ),
    "rating": ("rating", "overall", "stars", "score"),
}
_HEAD = 1000  # rows in which the unit of the times is found
FLAGS = {"user": "user", "item": "item", "time": "time", "rating": "rating"}
NUMBER = "^(0|-?[1-9][0-9]{0,17})$"  # a text that is the one spelling of a whole number


@dataclass(frozen=True)
class Loaded:
    """What was found in a log.

    Attributes:
      columns: role -> column.
      times: how times are written.
      steps: (what happened, events left, users left, items left), in order.
    """

    columns: dict[str, str]
    times: str
    steps: list[tuple[str, int, int, int]]


def load_log(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Columns,
    filters: Filters,
    say: Callable[[str], None],
    time_format: str | None = None,
) -> Loaded:
    """Makes the tables `users` (u, name), `items` (i, name) and `events` (u, i, t).

    u and i number users and items in the order of their names. t is in milliseconds.
    Rating and time window are applied. Events that are equal in user, item and time are
    one event.

    Raises:
      IngestError: columns that are missing, rows without user, item or time, a rating
        that is no number, times that cannot be read or are not after the start of
        1970 (unless the time window drops them), or nothing that is left.
    """
    found = log_columns(table, columns, filters)
    say(said(table, found))
    time, times = milliseconds(connection, head_of(table), found["time"], time_format)
    say(f"{table.name}: times are {times}")
    _read(connection, table, found, time, time_format)
    if not drops_unknown_times(filters):
        _refuse_unknown_times(connection, table, found["time"], time)
    kept = _kept(filters)
    steps = [("read", *keys_of_names(connection, kept))]
    if kept:
        steps.append(("rated and in the time window", *_kept_sizes(connection, kept)))
    if not steps[-1][1]:
        raise IngestError(f"{table.name}: no event is left of {steps[0][1]} by rating and time window; change them.")
    number_names(connection, kept, {role: found[role] in table.whole for role in ("user", "item")})
    steps.append(("repeated events removed", *sizes(connection)))
    return Loaded(found, times, steps)


def head_of(table: Table) -> Table:
    """The first rows of a table."""
    return dataclasses.replace(table, sql=f"(SELECT * FROM {table.sql} LIMIT {_HEAD})")


def drops_unknown_times(filters: Filters) -> bool:
    """Whether the time window drops times at or before the start of 1970."""
    return filters.since is not None and filters.since > 0


def _refuse_unknown_times(connection: duckdb.DuckDBPyConnection, table: Table, name: str, time: str) -> None:
    """Raises IngestError for times at or before the start of 1970."""
    found = connection.execute("SELECT count(*) FILTER (t <= 0), count(*) FROM raw").fetchone()
    if found and found[0]:
        bad = first_row(connection, table, f"({time}) <= 0", name)
        raise IngestError(f"{bad} ({found[0]} of {found[1]} rows are such): {UNKNOWN_TIMES}.")


def _read(
    connection: duckdb.DuckDBPyConnection, table: Table, found: dict[str, str], time: str, time_format: str | None
) -> None:
    """Makes the table `raw` (user, item, t, rating) in one pass over the files.

    They are read again for a message alone.
    """
    names = {role: name_sql(connection, table, found[role]) for role in ("user", "item")}
    selected = [f"{name} AS {role}" for role, name in names.items()]
    number = f"try_cast({column(found['rating'])} AS DOUBLE)" if "rating" in found else "NULL::DOUBLE"
    selected += [f"{time} AS t", f"{number} AS rating"]
    with explained(table.name):
        connection.execute(f"CREATE OR REPLACE TABLE raw AS SELECT {', '.join(selected)} FROM {table.sql}")
    conditions = {"user": "user IS NULL", "item": "item IS NULL", "time": "t IS NULL"}
    if "rating" in found:
        conditions["rating"] = "NOT coalesce(isfinite(rating), false)"
    counts = connection.execute(
        f"SELECT {', '.join(f'count(*) FILTER ({condition})' for condition in conditions.values())} FROM raw"
    ).fetchone()
    assert counts is not None
    if not any(counts):
        return
    for role, name in {**names, "time": f"nullif(trim({column(found['time'])}::VARCHAR), '')"}.items():
        _refuse(connection, table, f"({name}) IS NULL", found[role], f"a value of {role}")
    if "rating" in found:
        bad = f"NOT coalesce(isfinite({number}), false)"
        _refuse(connection, table, bad, found["rating"], "a number as the rating")
    milliseconds(connection, table, found["time"], time_format)
    raise IngestError(f"{table.name}: {sum(counts)} rows cannot be read; write users, items, times and ratings alike.")


def keys_of_names(connection: duckdb.DuckDBPyConnection, kept: str) -> tuple[int, int, int]:
    """Makes the tables `user_keys` and `item_keys` (text, kept).

    Returns:
      events, users and items of the table `raw`.
    """
    found = [connection.execute("SELECT count(*) FROM raw").fetchall()[0][0]]
    for role in ("user", "item"):
        connection.execute(
            f"CREATE TABLE {role}_keys AS SELECT {role} AS text, bool_or({kept or 'true'}) AS kept FROM raw "
            f"GROUP BY {role}"
        )
        found.append(connection.execute(f"SELECT count(*) FROM {role}_keys").fetchall()[0][0])
    return found[0], found[1], found[2]


def _kept_sizes(connection: duckdb.DuckDBPyConnection, kept: str) -> tuple[int, int, int]:
    """Events, users and items that rating and time window keep."""
    found = connection.execute(
        f"SELECT (SELECT count(*) FROM raw WHERE {kept}), (SELECT count(*) FROM user_keys WHERE kept), "
        "(SELECT count(*) FROM item_keys WHERE kept)"
    ).fetchone()
    assert found is not None
    return found


def log_columns(table: Table, columns: Columns, filters: Filters) -> dict[str, str]:
    """Finds the columns of a log: role -> column."""
    found = named_columns(table, {role: getattr(columns, role) for role in USUAL}, USUAL)
    if filters.min_rating is None and columns.rating is None:
        found.pop("rating", None)
    need(table, found, ("user", "item", "time"), FLAGS)
    if filters.min_rating is not None:
        need(table, found, ("rating",), FLAGS)
    return found


def _kept(filters: Filters) -> str:
    """An SQL condition of the rows of `raw` that rating and time window keep; "" for all."""
    kept = [
        f"t {sign} {moment}" for sign, moment in ((">=", filters.since), ("<", filters.until)) if moment is not None
    ]
    if filters.min_rating is not None:
        kept.append(f"rating >= {filters.min_rating!r}")
    return " AND ".join(kept)


def number_names(
    connection: duckdb.DuckDBPyConnection, kept: str, may_be_number: dict[str, bool], more: str = ""
) -> None:
    """Makes `users`, `items` and `events` of `raw` and the keys, which are dropped.

    Args:
      connection: with the tables of `keys_of_names`.
      kept: an SQL condition of the rows of `raw` that are kept; "" for all.
      may_be_number: role -> whether names that are all spelled as whole numbers are
        numbers.
      more: columns of `raw` that `events` gets too, such as ", split".
    """
    same = []
    kinds = {name: kind for name, kind, *_ in connection.execute("DESCRIBE raw").fetchall()}
    for role, letter in (("user", "u"), ("item", "i")):
        name = "text"
        same.append(f"{role}s.{'text' if kinds[role] == 'VARCHAR' else 'name'} = raw.{role}")
        if may_be_number[role] and kinds[role] == "VARCHAR":
            found = connection.execute(f"SELECT bool_and(regexp_matches(text, '{NUMBER}')) FROM {role}_keys").fetchone()
            name = "CAST(text AS BIGINT)" if found and found[0] else "text"
        connection.execute(
            f"CREATE TABLE {role}s AS SELECT CAST(row_number() OVER (ORDER BY name) - 1 AS INTEGER) AS {letter}, "
            f"name, text FROM (SELECT {name} AS name, text::VARCHAR AS text FROM {role}_keys WHERE kept)"
        )
        connection.execute(f"DROP TABLE {role}_keys")
    connection.execute(
        f"CREATE TABLE events AS SELECT DISTINCT u, i, t{more} FROM raw JOIN users ON {same[0]} "
        f"JOIN items ON {same[1]} WHERE {kept or 'true'}"
    )
    connection.execute("DROP TABLE raw")


def _refuse(connection: duckdb.DuckDBPyConnection, table: Table, condition: str, name: str, expected: str) -> None:
    """Raises IngestError for a row that a condition holds for."""
    with explained(table.name):
        found = connection.execute(f"SELECT count(*) FILTER ({condition}), count(*) FROM {table.sql}").fetchone()
        if found and found[0]:
            bad = first_row(connection, table, condition, name)
            raise IngestError(
                f"{bad}: expected {expected} ({found[0]} of {found[1]} rows lack it); correct or remove these rows."
            )
