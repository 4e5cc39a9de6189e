"""Loads a log into the database: users and items get numbers, times one unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from atspeed_jax.ingest.settings import Columns, Filters, IngestError
from atspeed_jax.ingest.tables import Table, column, explained, named_columns, need
from atspeed_jax.ingest.times import first_row, milliseconds

USUAL = {
    "user": ("user_id", "userid", "user", "reviewerid", "customer_id", "customer", "visitorid", "session_id", "uid"),
    "item": (
        *("item_id", "itemid", "item", "parent_asin", "asin", "movieid", "movie_id", "product_id", "productid"),
        *("product", "article_id", "business_id", "sku", "iid"),
    ),
    "time": ("timestamp", "time", "unixreviewtime", "date", "datetime", "created_at", "event_time", "t_dat", "ts"),
    "rating": ("rating", "overall", "stars", "score"),
}
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
) -> Loaded:
    """Makes the tables `users` (u, name), `items` (i, name) and `events` (u, i, t).

    u and i number users and items in the order of their names. t is in milliseconds.
    Rating and time window are applied. Events that are equal in user, item and time are
    one event.

    Raises:
      IngestError: columns that are missing, rows without user, item or time, a rating
        that is no number, times that cannot be read, or nothing that is left.
    """
    found = _columns(table, columns, filters)
    say(f"{table.name}: " + ", ".join(f"{role} = {name}" for role, name in found.items()))
    needed = ", ".join(column(name) for name in found.values())
    with explained(table.name):  # one pass over the files; they are read again for a message alone
        connection.execute(f"CREATE TABLE raw AS SELECT {needed} FROM {table.sql}")
    raw = dataclasses.replace(table, sql="raw")
    for role in ("user", "item", "time"):
        name = column(found[role])
        _refuse(connection, raw, f"{name} IS NULL OR trim({name}::VARCHAR) = ''", found[role], f"a {role}")
    if "rating" in found:
        number = f"try_cast({column(found['rating'])} AS DOUBLE)"
        _refuse(connection, raw, f"NOT coalesce(isfinite({number}), false)", found["rating"], "a number as the rating")
    time, times = milliseconds(connection, raw, found["time"])
    say(f"{table.name}: times are {times}")

    user, item = (f"trim({column(found[role])}::VARCHAR)" for role in ("user", "item"))
    steps = [("read", *_sizes(connection, "raw", user, item))]
    kept = _kept(found, filters, time)
    connection.execute(
        f"CREATE TABLE chosen AS SELECT {user} AS user, {item} AS item, {time} AS t FROM raw "
        f"WHERE {' AND '.join(kept) or 'true'}"
    )
    connection.execute("DROP TABLE raw")
    if kept:
        steps.append(("rated and in the time window", *_sizes(connection, "chosen", "user", "item")))
    if not steps[-1][1]:
        raise IngestError(f"{table.name}: no event is left of {steps[0][1]} by rating and time window; change them.")
    _number(connection)
    steps.append(("the same event once", *_sizes(connection, "events", "u", "i")))
    return Loaded(found, times, steps)


def _columns(table: Table, columns: Columns, filters: Filters) -> dict[str, str]:
    """Finds the columns of a log: role -> column."""
    found = named_columns(table, {role: getattr(columns, role) for role in USUAL}, USUAL)
    if filters.min_rating is None and columns.rating is None:
        found.pop("rating", None)
    need(table, found, ("user", "item", "time"), FLAGS)
    if filters.min_rating is not None:
        need(table, found, ("rating",), FLAGS)
    return found


def _kept(found: dict[str, str], filters: Filters, time: str) -> list[str]:
    """SQL conditions of the rows that rating and time window keep."""
    kept = [
        f"({time}) {sign} {moment}"
        for sign, moment in ((">=", filters.since), ("<", filters.until))
        if moment is not None
    ]
    if filters.min_rating is not None:
        kept.append(f"try_cast({column(found['rating'])} AS DOUBLE) >= {filters.min_rating!r}")
    return kept


def _number(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes `users`, `items` and `events` of the table `chosen` (user, item, t), which is dropped."""
    for role, letter in (("user", "u"), ("item", "i")):
        number = connection.execute(f"SELECT bool_and(regexp_matches({role}, '{NUMBER}')) FROM chosen").fetchone()
        name = f"CAST({role} AS BIGINT)" if number and number[0] else role
        connection.execute(
            f"CREATE TABLE {role}s AS SELECT CAST(row_number() OVER (ORDER BY name) - 1 AS INTEGER) AS {letter}, "
            f"name, text FROM (SELECT DISTINCT {name} AS name, {role} AS text FROM chosen)"
        )
    connection.execute(
        "CREATE TABLE events AS SELECT DISTINCT u, i, t FROM chosen JOIN users ON users.text = chosen.user "
        "JOIN items ON items.text = chosen.item"
    )
    connection.execute("DROP TABLE chosen")


def _refuse(connection: duckdb.DuckDBPyConnection, table: Table, condition: str, name: str, expected: str) -> None:
    """Raises IngestError for a row that a condition holds for."""
    with explained(table.name):
        found = connection.execute(f"SELECT count(*) FILTER ({condition}), count(*) FROM {table.sql}").fetchone()
        if found and found[0]:
            bad = first_row(connection, table, condition, name)
            raise IngestError(
                f"{bad}: expected {expected} ({found[0]} of {found[1]} rows lack it); correct or remove these rows."
            )


def _sizes(connection: duckdb.DuckDBPyConnection, events: str, user: str, item: str) -> tuple[int, int, int]:
    """Events, users and items of a table."""
    found = connection.execute(
        f"SELECT (SELECT count(*) FROM {events}), (SELECT count(*) FROM (SELECT DISTINCT {user} FROM {events})), "
        f"(SELECT count(*) FROM (SELECT DISTINCT {item} FROM {events}))"
    ).fetchone()
    assert found is not None
    return found
