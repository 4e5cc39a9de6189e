"""Writes the directory of a log: interactions, items, users and histories as parquet.

interactions.parquet   user, item, time (milliseconds UTC), split; sorted by user, time and item
items.parquet          row n is item n: its name, its title, and what else the item file says
users.parquet          row n is user n: its name
histories.parquet      user and items by name, oldest first: an input of launch.recommend
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.ingest.items import PROPERTIES
from atspeed_jax.ingest.tables import column_names, quoted
from atspeed_jax.items.data_directory import HISTORIES, INTERACTIONS, ITEMS, USERS

GROUP = 1_000_000  # rows of a row group


def write_tables(connection: duckdb.DuckDBPyConnection, directory: Path, split: str) -> dict[int, int]:
    """Writes the tables of the database.

    Users and items get numbers without gaps, in the order of their names.

    Args:
      connection: with `events` (u, i, t), `users` (u, name), `items` (i, name, text),
        and `item_texts` if an item file is given.
      directory: that gets the files.
      split: SQL expression of the split of a row of `events`.

    Returns:
      events of each split.
    """
    for letter, table in (("u", "users"), ("i", "items")):
        connection.execute(
            f"CREATE TABLE kept_{table} AS SELECT {letter}, "
            f"CAST(row_number() OVER (ORDER BY {letter}) - 1 AS INTEGER) AS n "
            f"FROM (SELECT DISTINCT {letter} FROM events)"
        )
    _copy(
        connection,
        "SELECT kept_users.n AS user, kept_items.n AS item, t AS time, CAST(split AS TINYINT) AS split "
        f"FROM (SELECT u, i, t, {split} AS split FROM events) JOIN kept_users USING (u) JOIN kept_items USING (i) "
        "ORDER BY user, time, item",
        directory / INTERACTIONS,
    )
    _copy(
        connection,
        "SELECT n AS user, name FROM kept_users JOIN users USING (u) ORDER BY user",
        directory / USERS,
    )
    _copy(connection, _items(connection), directory / ITEMS)
    counts = connection.execute(
        f"SELECT split, count(*) FROM read_parquet({quoted(str(directory / INTERACTIONS))}) GROUP BY split"
    ).fetchall()
    return dict(counts)


def _items(connection: duckdb.DuckDBPyConnection) -> str:
    """The query of items.parquet."""
    tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    if "item_texts" not in tables:
        return "SELECT n AS item, name, NULL::VARCHAR AS title FROM kept_items JOIN items USING (i) ORDER BY item"
    columns = column_names(connection, "item_texts")
    shown = [f"item_texts.{name}" for name in PROPERTIES if name in columns and name != "title"]
    title = "item_texts.title" if "title" in columns else "NULL::VARCHAR"
    return (
        f"SELECT {', '.join(['n AS item', 'items.name', f'{title} AS title', *shown])} FROM kept_items "
        "JOIN items USING (i) LEFT JOIN item_texts ON items.text = item_texts.name ORDER BY item"
    )


def _copy(connection: duckdb.DuckDBPyConnection, select: str, file: Path) -> None:
    connection.execute(f"COPY ({select}) TO {quoted(str(file))} (FORMAT parquet, ROW_GROUP_SIZE {GROUP})")


def write_histories(directory: Path) -> None:
    """Writes histories.parquet of the other files, a group of rows at a time."""
    users = pq.read_table(directory / USERS, columns=["name"])["name"].combine_chunks()
    names = pq.read_table(directory / ITEMS, columns=["name"])["name"].combine_chunks()
    schema = pa.schema({"user": users.type, "items": pa.list_(names.type)})
    with pq.ParquetWriter(directory / HISTORIES, schema) as writer:
        for user, items in _whole_users(directory / INTERACTIONS):
            found, starts = np.unique(user, return_index=True)
            offsets = pa.array(np.append(starts, len(user)), pa.int32())
            lists = pa.ListArray.from_arrays(offsets, names.take(pa.array(items)))
            writer.write_table(pa.table([users.take(pa.array(found)), lists], schema=schema))


def _whole_users(file: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields columns user and item of interactions, never parting those of one user."""
    user, item = np.zeros(0, np.int32), np.zeros(0, np.int32)
    for batch in pq.ParquetFile(file).iter_batches(GROUP, columns=["user", "item"]):
        user = np.concatenate((user, batch["user"].to_numpy()))
        item = np.concatenate((item, batch["item"].to_numpy()))
        whole = int(np.searchsorted(user, user[-1]))  # the last user may go on in the next batch
        if whole:
            yield user[:whole], item[:whole]
        user, item = user[whole:], item[whole:]
    if len(user):
        yield user, item
