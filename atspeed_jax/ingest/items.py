"""Item files: titles, texts and other properties of the items of a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import duckdb

from atspeed_jax.ingest.columns import ITEM_COLUMNS, named_columns, need, said
from atspeed_jax.ingest.settings import Columns, IngestError
from atspeed_jax.ingest.tables import Table, column, column_names, name_sql
from atspeed_jax.ingest.text_files import explained
from atspeed_jax.ingest.times import first_row

PROPERTIES = ("title", "text", "category", "brand", "price", "vector")
USUAL = {
    "item_name": (*ITEM_COLUMNS, "id"),
    "title": ("title", "name", "prod_name", "item_title", "product_name", "product_title", "productname"),
    "text": ("text", "description", "detail_desc", "features"),
    "category": ("category", "categories", "genres", "main_category", "product_type_name"),
    "brand": ("brand", "store", "brand_name"),
    "price": ("price",),
    "vector": ("vector", "embedding"),
}
_FLAGS = {"item_name": "item_name"}
_ALIKE = "lower(nfc_normalize(regexp_replace(ltrim({}, '0'), '[.]0+$|[\\s\\p{{Z}}]', '', 'g')))"  # of names mixed up


def load_items(
    connection: duckdb.DuckDBPyConnection, table: Table, columns: Columns, item: str, say: Callable[[str], None]
) -> list[str]:
    """Makes the table `item_texts` (name and the properties that the file has).

    Args:
      connection: that reads the table.
      table: of the items.
      columns: that the user named.
      item: the column of the log that names the item; it is preferred here too.
      say: gets what was found.

    Returns:
      what is worth a warning.

    Raises:
      IngestError: a column that is missing, an item without name or twice, or vectors
        that are no finite numbers of one width; it names the row.
    """
    usual = USUAL | {"item_name": (item.lower(), *USUAL["item_name"])}
    found, warnings = load_properties(connection, table, columns, usual, say)
    if len(found) == 1:
        raise IngestError(
            f"{table.name}: no column is known as title, text or another property; it has {', '.join(table.columns)}. "
            "Name one: --title=NAME or --text=NAME."
        )
    unused = [column for column in table.columns if column not in found.values()]
    if "title" not in found and unused:
        warnings.append(
            f"{table.name}: no column is known as the title, so that lists have none; it has also {', '.join(unused)}. "
            "If one is the title, name it: --title=NAME"
        )
    _say_unbought(connection, table, say)
    return [*warnings, *_warnings(connection, table)]


def load_properties(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Columns,
    usual: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
) -> tuple[dict[str, str], list[str]]:
    """Makes the table `item_texts` (name and the properties that the file has).

    Args:
      connection: that reads the table.
      table: of the items.
      columns: that the user named.
      usual: role -> names of columns that are taken otherwise, the best first.
      say: gets what was found.

    Returns:
      role -> column, and what is worth a warning.

    Raises:
      IngestError: as `load_items`, but for what concerns the log.
    """
    wanted = {"item_name": columns.item_name, **{name: getattr(columns, name) for name in PROPERTIES}}
    found = named_columns(table, wanted, usual)
    need(table, found, ("item_name",), _FLAGS)
    say(said(table, found))
    name = f"({name_sql(connection, table, found['item_name'])})::VARCHAR"
    with explained(table.name):
        lacking = connection.execute(f"SELECT count(*) FILTER ({name} IS NULL), count(*) FROM {table.sql}").fetchone()
        if not (lacking and lacking[1]):
            raise IngestError(f"{table.name}: no rows at all; expected a row per item.")
        if lacking[0]:
            bad = first_row(connection, table, f"{name} IS NULL", found["item_name"])
            raise IngestError(f"{bad}: expected the name of an item ({lacking[0]} rows lack it).")
        described = connection.execute(f"DESCRIBE SELECT * FROM {table.sql}").fetchall()
        kinds = {row[0]: row[1] for row in described}
        selected = [
            "row_number() OVER () AS row",
            f"{name} AS name",
            *(_property(role, found[role], kinds[found[role]]) for role in PROPERTIES if role in found),
        ]
        connection.execute(f"CREATE TABLE item_texts AS SELECT {', '.join(selected)} FROM {table.sql}")
    warnings = _drop_repeated(connection, table)
    if "vector" in found:
        _check_vectors(connection, table)
    connection.execute("ALTER TABLE item_texts DROP row")
    return found, warnings


def _say_unbought(connection: duckdb.DuckDBPyConnection, table: Table, say: Callable[[str], None]) -> None:
    """Says how many items of the file are in no event."""
    found = connection.execute(
        "SELECT count(*), min(name) FROM item_texts WHERE name NOT IN (SELECT text FROM items)"
    ).fetchone()
    if found and found[0]:
        say(
            f"{table.name}: {found[0]:,} items are in no event, such as {found[1]!r}, and are left out; "
            f"launch.build_ids --assign={table.files[0]} of the checkout gives them ids once the others have theirs"
        )


def _drop_repeated(connection: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """Keeps the first row of each item; says how many others there were."""
    later = "(SELECT name, row, row_number() OVER (PARTITION BY name ORDER BY row) AS n FROM item_texts)"
    twice = connection.execute(f"SELECT count(*), min(row), arg_min(name, row) FROM {later} WHERE n > 1").fetchone()
    if not twice or not twice[0]:
        return []
    connection.execute(f"DELETE FROM item_texts WHERE row IN (SELECT row FROM {later} WHERE n > 1)")
    return [
        f"{table.name}: {twice[0]:,} rows are of an item that has a row already, such as row {twice[1]} of "
        f"{twice[2]!r}; the first row of an item counts"
    ]


def _property(role: str, name: str, kind: str) -> str:
    """An SQL expression of a property; lists of texts become one text.

    kind: type of the column.
    """
    value = column(name)
    if role == "vector":
        if kind == "VARCHAR":  # such as [0.1, 0.2], 0.1 0.2 or 0.1;0.2
            listed = f"'[' || regexp_replace(trim({value}, '[] '), '[,;[:space:]]+', ',', 'g') || ']'"
            read = f"coalesce(TRY_CAST({listed} AS FLOAT[]), [NULL::FLOAT])"  # what is no list is refused by its row
            return f"CASE WHEN trim({value}) <> '' THEN {read} END AS vector"
        return f"CAST({value} AS FLOAT[]) AS vector"
    between = "', '" if role == "category" else "' '"
    if kind.endswith("[]"):
        text = f"array_to_string({value}::VARCHAR[], {between})"
    elif kind == "VARCHAR":  # a list of JSON, or a list of lists such as the categories of Amazon
        lists = (f"array_to_string(json_extract_string({value}, '{path}'), {between})" for path in ("$[*][*]", "$[*]"))
        nested, flat = lists
        text = (
            f"CASE WHEN NOT starts_with({value}, '[') OR NOT json_valid({value}) THEN {value} "
            f"WHEN starts_with({value}, '[[') THEN {nested} ELSE {flat} END"
        )
    else:
        text = f"{value}::VARCHAR"
    return f"nullif(trim({text}), '') AS {role}"


def _check_vectors(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Raises IngestError for vectors that are not finite, or of several widths."""
    bad = connection.execute(
        "SELECT name, row FROM item_texts "
        "WHERE NOT list_bool_and(list_transform(vector, lambda x: coalesce(isfinite(x), false))) "
        "ORDER BY row LIMIT 1"
    ).fetchone()
    if bad:
        raise IngestError(
            f"{table.name}, row {bad[1]}: the vector of item {bad[0]!r} has an entry that is no finite number; "
            "correct it."
        )
    widths = connection.execute(
        "SELECT len(vector), count(*), arg_min(name, row), min(row) FROM item_texts WHERE vector IS NOT NULL "
        "GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    if len(widths) == 1 and not widths[0][0]:
        raise IngestError(f"{table.name}: the vectors have no numbers; give vectors, or leave that column out.")
    if len(widths) > 1:
        usual, rare = widths[0], widths[-1]
        raise IngestError(
            f"{table.name}, row {rare[3]}: the vector of item {rare[2]!r} has {rare[0]} numbers, those of {usual[1]} "
            f"items have {usual[0]}; give vectors of one width to all items."
        )


def _warnings(connection: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """Says how many items of the log the file lacks, or gives no text or vector."""
    lacks = connection.execute(
        "SELECT count(*), min(text), (SELECT count(*) FROM items) FROM items "
        "WHERE text NOT IN (SELECT name FROM item_texts)"
    ).fetchone()
    assert lacks is not None
    count, example, items = lacks
    if count == items:
        other = connection.execute("SELECT min(name) FROM item_texts").fetchone()
        raise IngestError(
            f"{table.name}: none of the {items} items of the log is here; the log has {example!r}, this file "
            f"{other[0] if other else None!r}{_written_otherwise(connection)}. Name the column of the same names: "
            "--item_name=NAME."
        )
    lines = []
    if count:
        otherwise = _written_otherwise(connection)
        lines = [f"{table.name}: {count:,} of {items:,} items of the log are not here, such as {example!r}{otherwise}"]
    columns = column_names(connection, "item_texts")
    for names, lack in ((("title", "text"), "neither title nor text"), (("vector",), "no vector")):
        blank = " AND ".join(f"{name} IS NULL" for name in names if name in columns)
        found = connection.execute(
            f"SELECT count(*), min(name) FROM item_texts WHERE {blank or 'false'} AND name IN (SELECT text FROM items)"
        ).fetchone()
        if found and found[0]:
            lines.append(f"{table.name}: {found[0]:,} items of the log have {lack}, such as {found[1]!r}")
    return lines


def _written_otherwise(connection: duckdb.DuckDBPyConnection) -> str:
    """Says of an item of the log how the file may write it; empty if nothing is like it."""
    found = connection.execute(
        "SELECT log.text, min(file.name) FROM items AS log JOIN item_texts AS file "
        f"ON {_ALIKE.format('log.text')} = {_ALIKE.format('file.name')} "
        "WHERE log.text NOT IN (SELECT name FROM item_texts) GROUP BY log.text ORDER BY log.text LIMIT 1"
    ).fetchone()
    if not found:
        return ""
    log, file = map(ascii, found)  # two Unicode forms of a letter look alike
    return f"; {log} of the log may be {file} of this file: write names alike in both"
