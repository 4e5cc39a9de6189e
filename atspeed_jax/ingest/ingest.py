"""From a raw log to a directory of numbered, filtered and split interactions."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from atspeed_jax.ingest.filters import apply_filters, told
from atspeed_jax.ingest.items import load_items
from atspeed_jax.ingest.log import load_log
from atspeed_jax.ingest.settings import IngestConfig, IngestError
from atspeed_jax.ingest.splits import check_split, split_of_event
from atspeed_jax.ingest.store import write_histories, write_tables
from atspeed_jax.ingest.tables import Table, open_table, quoted
from atspeed_jax.utils.building import built
from atspeed_jax.utils.files import write_json

FORMAT = 1
RECORD = "ingest.json"
_SPLITS = ("train", "valid", "test")


def ingest(
    interactions: str,
    items: str | None,
    output: Path,
    config: IngestConfig,
    say: Callable[[str], None],
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

    Returns:
      the record that is stored as ingest.json.

    Raises:
      IngestError: a file, a row or a setting that cannot be used, or an output that
        exists.
    """
    try:
        with built(output) as building, _engine(building, config) as connection:
            log = open_table(connection, interactions)
            texts = open_table(connection, items) if items else None
            loaded = load_log(connection, log, config.columns, config.filters, say)
            warnings = []
            if texts is not None:
                warnings = load_items(connection, texts, config.columns, loaded.columns["item"], say)
            steps = [*loaded.steps, *apply_filters(connection, config.filters, titled=texts is not None)]
            for step in steps:
                say(told([step]))
            split, cut = split_of_event(connection, config.split)
            counts = write_tables(connection, building, split)
            check_split(counts, config.split, cut)
            say("split: " + ", ".join(f"{name} {counts[number]:,}" for number, name in enumerate(_SPLITS)))
            few = connection.execute(
                "SELECT count(*) FROM (SELECT u FROM events GROUP BY u HAVING count(*) = 1)"
            ).fetchone()
            if few and few[0]:
                warnings.append(f"{few[0]:,} users have one event; --user_core=2 leaves them out")
            write_histories(building)
            for warning in warnings:
                say(f"warning: {warning}")
            record = _record(output.name, log, texts, config, steps, counts, cut) | {"warnings": warnings}
            write_json(building / RECORD, record)
    except FileExistsError as error:
        raise IngestError(f"--output={error}") from error
    except OSError as error:
        raise IngestError(f"--output={output} cannot be written ({error}); give a place you may write to.") from error
    except duckdb.OutOfMemoryException as error:
        raise IngestError(f"memory ran out ({str(error).splitlines()[0]}); raise --memory_gb.") from error
    return record


@contextlib.contextmanager
def _engine(directory: Path, config: IngestConfig) -> Iterator[duckdb.DuckDBPyConnection]:
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
    for left in directory.glob("database*"):
        left.unlink()
    shutil.rmtree(spill, ignore_errors=True)


def _record(name, log: Table, texts: Table | None, config: IngestConfig, steps, counts, cut) -> dict:
    """What ingest.json says."""
    events, users, items = steps[-1][1:]
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
        "splits": {split: counts[number] for number, split in enumerate(_SPLITS)},
        "cut": cut,
        "steps": [dict(zip(("what", "interactions", "users", "items"), step, strict=True)) for step in steps],
        "settings": settings,
        "sources": [{"file": str(file.resolve()), "bytes": file.stat().st_size} for file in sources],
    }
