"""Items of a catalog that grows, read as `launch.ingest` reads its item file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa

from atspeed_jax.ingest.formats import items_form, open_as, with_columns
from atspeed_jax.ingest.items import PROPERTIES, USUAL, load_properties
from atspeed_jax.ingest.settings import Columns, Files, Format, IngestError
from atspeed_jax.ingest.tables import Table
from atspeed_jax.items.data_directory import RECORD


def read_new_items(pattern: str, directory: Path, say: Callable[[str], None]) -> pa.Table:
    """Reads an item file for a data directory.

    Columns that launch.ingest was told for the directory are taken where the file has
    them, and usual ones otherwise. A column name is the name of the item if another one
    is the title.

    Args:
      pattern: a file, or a pattern of files.
      directory: whose ingest.json says what launch.ingest was told; it may lack it.
      say: gets the columns that were found, and warnings.

    Returns:
      A row per item: name, a text, and those of title, text, category, brand, price and
      vector that the file has.

    Raises:
      IngestError: a file that cannot be read, or as `load_properties`.
    """
    told = _told(directory / RECORD)
    files = Files(cast(Format, told.get("format", "auto")), told.get("encoding"), told.get("delimiter"))
    with tempfile.TemporaryDirectory() as place, duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET autoinstall_known_extensions=false")
        form = items_form(pattern, files)
        table = open_as(connection, pattern, form, files, Path(place))
        columns = with_columns(Columns(), form)
        _, warnings = load_properties(connection, table, columns, _usual(table, told), say)
        for warning in warnings:
            say(f"warning: {warning}")
        return connection.sql("FROM item_texts").to_arrow_table()


def _told(record: Path) -> dict[str, str]:
    """Columns and forms of files that launch.ingest was told."""
    if not record.is_file():
        return {}
    try:
        settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
        told = {**settings["columns"], **settings["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IngestError(f"{record} is damaged ({error!r}); write the directory again.") from error
    return {name: value for name, value in told.items() if isinstance(value, str)}


def _usual(table: Table, told: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """Names of columns that are taken for each role, the best first."""
    usual = {role: (*_plain(told.get(role)), *names) for role, names in USUAL.items() if role in PROPERTIES}
    has = {name.lower() for name in table.columns}
    titled = any(name in has for name in usual["title"] if name != "name")
    first = (*_plain(told.get("item_name")), *_plain(told.get("item")), *(("name",) if titled else ()))
    return usual | {"item_name": (*first, *USUAL["item_name"], "name")}


def _plain(name: str | None) -> tuple[str, ...]:
    """The name of a column as `named_columns` compares it; nothing without one."""
    return () if name is None else (name.partition(":")[0].strip().lower(),)
