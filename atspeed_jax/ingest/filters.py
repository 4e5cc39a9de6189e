"""Filters of the events in the database: texts, repeats, and the k-core."""

from __future__ import annotations

import duckdb

from atspeed_jax.ingest.settings import Filters, IngestError
from atspeed_jax.ingest.tables import column_names

Step = tuple[str, int, int, int]  # what was applied, and the events, users and items that are left


def apply_filters(connection: duckdb.DuckDBPyConnection, filters: Filters, *, titled: bool) -> list[Step]:
    """Filters the table `events` (u, i, t).

    Args:
      connection: that has the table, and `item_texts` (name, ...) if items are given.
      filters: what is kept; rating and time window are applied already.
      titled: whether items are given.

    Returns:
      what each filter has left, in order.

    Raises:
      IngestError: nothing is left.
    """
    steps: list[Step] = []

    def keep(what: str, select: str) -> None:
        _replace(connection, select)
        steps.append((what, *sizes(connection)))
        if not steps[-1][1]:
            raise IngestError(f"no event is left: {told(steps)}; change the filters.")

    if filters.need_text:
        known = f"items.text IN ({names_with_text(connection, titled=titled)})"
        keep("items with text", f"SELECT events.* FROM events JOIN items USING (i) WHERE {known}")
    if filters.repeats != "all":
        best = "min" if filters.repeats == "first" else "max"
        keep(f"the {filters.repeats} of each user and item", f"SELECT u, i, {best}(t) AS t FROM events GROUP BY u, i")
    if filters.user_core > 1 or filters.item_core > 1:
        _core(connection, filters)
        steps.append((f"users of {filters.user_core} and items of {filters.item_core} events", *sizes(connection)))
        if not steps[-1][1]:
            raise IngestError(f"no event is left: {told(steps)}; lower the core.")
    return steps


def drop_few_trained(connection: duckdb.DuckDBPyConnection, split: str, min_train: int) -> list[Step]:
    """Drops the users of too few training events, with all their events.

    Args:
      connection: with the table `events`.
      split: SQL expression of the split of a row of `events`; 0 is train.
      min_train: least training events of a user.

    Returns:
      what is left.

    Raises:
      IngestError: nothing is left.
    """
    if min_train < 1:
        return []
    enough = f"SELECT u FROM (SELECT u, {split} AS split FROM events) WHERE split = 0 GROUP BY u"
    _replace(connection, f"SELECT * FROM events WHERE u IN ({enough} HAVING count(*) >= {min_train})")
    step = (f"users of {min_train} training events", *sizes(connection))
    if not step[1]:
        raise IngestError(f"no event is left: {told([step])}; lower min_train.")
    return [step]


def names_with_text(connection: duckdb.DuckDBPyConnection, *, titled: bool) -> str:
    """Returns a query of the names of the items that have a title or a text.

    Raises:
      IngestError: no item file is given, or it has neither titles nor texts.
    """
    if not titled:
        raise IngestError("need_text drops items without text, but no item file is given: give --items.")
    texts = [name for name in ("title", "text") if name in column_names(connection, "item_texts")]
    if not texts:
        raise IngestError("need_text drops items without text, but the item file has neither title nor text.")
    filled = " OR ".join(f"trim({name}) <> ''" for name in texts)
    return f"SELECT name FROM item_texts WHERE {filled}"


def _replace(connection: duckdb.DuckDBPyConnection, select: str) -> None:
    """Puts the events of a query in the place of the table `events`."""
    connection.execute(f"CREATE TABLE kept AS {select}")
    connection.execute("DROP TABLE events")
    connection.execute("ALTER TABLE kept RENAME TO events")


def _core(connection: duckdb.DuckDBPyConnection, filters: Filters) -> None:
    """Drops users and items of too few events until all have enough.

    Events are counted once. Each round then takes the events that its users and items
    lose from the counts, so that later rounds, which drop few, cost one scan each.
    """
    least = {"u": filters.user_core, "i": filters.item_core}
    for letter in least:
        connection.execute(
            f"CREATE TEMP TABLE left_{letter} AS SELECT {letter}, count(*) AS n FROM events GROUP BY {letter}"
        )
    while True:
        for letter, enough in least.items():
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE few_{letter} AS SELECT {letter} FROM left_{letter} WHERE n < {enough}"
            )
        found = connection.execute("SELECT (SELECT count(*) FROM few_u) + (SELECT count(*) FROM few_i)").fetchone()
        if not (found and found[0]):
            break
        few = "u IN (SELECT u FROM few_u) OR i IN (SELECT i FROM few_i)"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE gone AS SELECT u, i FROM events WHERE {few}")
        _replace(connection, f"SELECT * FROM events WHERE NOT ({few})")
        for letter in least:
            lost = f"SELECT {letter}, count(*) AS lost FROM gone GROUP BY {letter}"
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE left_{letter} AS SELECT {letter}, n - coalesce(lost, 0) AS n "
                f"FROM (FROM left_{letter} ANTI JOIN few_{letter} USING ({letter})) LEFT JOIN ({lost}) "
                f"USING ({letter}) WHERE n > coalesce(lost, 0)"
            )
    for table in ("left_u", "left_i", "few_u", "few_i", "gone"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def sizes(connection: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    """Events, users and items of the table `events`."""
    found = connection.execute(
        "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM (SELECT DISTINCT u FROM events)), "
        "(SELECT count(*) FROM (SELECT DISTINCT i FROM events))"
    ).fetchone()
    assert found is not None
    return found


def told(steps: list[Step]) -> str:
    """What the filters left, in words."""
    return "; ".join(
        f"{what}: {events:,} events of {users:,} users and {items:,} items" for what, events, users, items in steps
    )
