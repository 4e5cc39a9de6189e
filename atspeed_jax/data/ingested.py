"""The directory that `launch.ingest` writes of a raw log, with the index of `launch.build_ids`.

ingest.json            the name of the dataset, and whether held-out items are asked one by one
interactions.parquet   user, item, time, split (0 train, 1 valid, 2 test), sorted by user and time
items.parquet          name and title of item n in row n
index.parquet          codes of item n in row n
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.data.files import ReadSettings
from atspeed_jax.data.rows import Rows
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.ingest.given_files import files_of
from atspeed_jax.items.data_directory import FORMAT, INDEX, INTERACTIONS, ITEMS, RECORD
from atspeed_jax.items.index_file import read_index, read_object
from atspeed_jax.items.item_index import ItemIndex, SourceError

_REBUILD = "write the directory again in the checkout with `python -m launch.ingest`"


def read_ingested(directory: Path, settings: ReadSettings, needs: str) -> Source:
    """Reads a directory of `launch.ingest` that has an index.

    Raises:
      SourceError: a file that is missing or damaged, or an index of other items.
    """
    record = _record(directory / RECORD, needs)
    if not (directory / INDEX).is_file():
        raise SourceError(
            f"{directory / INDEX}: the items have no ids yet; in the checkout run "
            f"`python -m launch.build_ids --data_dir={directory}`."
        )
    index = read_index(directory / INDEX, settings.index)
    _check_items(directory, index, record["items"])
    users, items, splits = _interactions(directory / INTERACTIONS, record["users"], len(index.codes))
    ends = np.cumsum(np.bincount(users, minlength=record["users"]))
    parts = [_of_split(users, items, splits == split, record["users"]) for split in range(len(SPLITS))]
    if not any(map(len, parts[0])):
        raise SourceError(f"{directory / INTERACTIONS}: no training interactions; {_REBUILD}.")
    rows = {}
    if record["rows"]:
        starts = np.concatenate(([0], ends[:-1]))
        rows = {SPLITS[split]: _rows(users, items, np.flatnonzero(splits == split), starts) for split in (1, 2)}
    return Source(
        record["name"],
        index.codes,
        *parts,
        spelling=index.spelling,
        rows=rows,
        titles=index.titles,
        names=index.names,
        level_sizes=index.level_sizes,
    )


def size_of(directory: Path) -> tuple[int, int, int]:
    """Returns the interactions of a directory, the codes of an id of its index, and its ids.

    Raises:
      SourceError: a file that is missing or damaged.
    """
    record = _record(directory / RECORD, "")
    codes = read_index(directory / INDEX).codes
    return record["interactions"], codes.shape[1], len(np.unique(codes, axis=0))


def check_sources(directory: Path, given: Sequence[str]) -> None:
    """Checks that a directory was made of these files.

    Args:
      directory: of launch.ingest, which records name and size of what it has read.
      given: the files of interactions and of items, or patterns of files.

    Raises:
      SourceError: it was made of other files, or of files that have changed.
      IngestError: no such file.
    """
    sources = _record(directory / RECORD, "").get("sources")
    made_of = [(str(source["file"]), int(source["bytes"])) for source in sources or ()]
    files = [(str(file.resolve()), file.stat().st_size) for pattern in given for file in files_of(pattern)]
    if made_of == files:
        return
    before, now = dict(made_of), dict(files)
    changed = [
        f"{file} had {size} bytes then, and has {now[file]} now"
        for file, size in made_of
        if now.get(file, size) != size
    ]
    raise SourceError(
        f"{directory} was made of {_listed(before)}, but {_listed(now)} are given"
        + "".join(f"; {line}" for line in changed)
        + ": remove the directory and its run, or name another --workdir."
    )


def _listed(files: Iterable[str]) -> str:
    return " and ".join(files) or "nothing"


def _record(file: Path, needs: str) -> dict:
    """What RECORD says."""
    if not file.is_file():
        raise SourceError(
            f"{file}: no such file; give a directory that `python -m launch.ingest` of the checkout wrote. {needs}"
        )
    record = read_object(file, "field", "expected the record that the checkout's launch.ingest writes")
    if record.get("format") != FORMAT:
        raise SourceError(f"{file}: format is {record.get('format')!r}, expected {FORMAT}; {_REBUILD}.")
    kinds = {"name": str, "users": int, "items": int, "interactions": int, "rows": bool}
    for name, kind in kinds.items():
        if type(record.get(name)) is not kind:
            raise SourceError(f"{file}: {name} is {record.get(name)!r}, expected a {kind.__name__}; {_REBUILD}.")
    return record


def _check_items(directory: Path, index: ItemIndex, items: int) -> None:
    """Checks that the index is that of the items of the directory."""
    again = f"in the checkout run `python -m launch.build_ids --data_dir={directory}` again"
    if len(index.codes) != items:
        raise SourceError(f"{directory / INDEX}: {len(index.codes)} items, but the log has {items}; {again}.")
    names = _columns(directory / ITEMS, ("name",))["name"].to_pylist()
    if index.names is not None and list(index.names) != names:
        one = next(item for item, (a, b) in enumerate(zip(index.names, names, strict=False)) if a != b)
        raise SourceError(
            f"{directory / INDEX}: item {one} is {index.names[one]!r}, but {names[one]!r} in {ITEMS}; {again}."
        )


def _columns(file: Path, names: Sequence[str]) -> pa.Table:
    """Columns of a parquet file."""
    try:
        return pq.read_table(file, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{file}: cannot be read as parquet with columns {list(names)} ({error}).") from error


def _interactions(file: Path, users: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns user, item and split [interactions], checked."""
    table = _columns(file, ("user", "item", "split"))
    found = {name: table[name].to_numpy() for name in table.column_names}
    for name, end in (("user", users), ("item", items), ("split", len(SPLITS))):
        column = found[name]
        if column.dtype.kind not in "iu":  # an integer column with empty places is read as floats
            raise SourceError(f"{file}: column {name} holds {column.dtype}, expected whole numbers; {_REBUILD}.")
        if len(column) and not 0 <= column.min() <= column.max() < end:
            row = int(np.flatnonzero((column < 0) | (column >= end))[0])
            raise SourceError(f"{file}, row {row}: {name} is {column[row]}, expected 0..{end - 1}; {_REBUILD}.")
    user, split = found["user"], found["split"]
    back = np.diff(user) < 0
    back |= (np.diff(user) == 0) & (np.diff(split.astype(np.int8)) < 0)
    if back.any():
        row = int(np.flatnonzero(back)[0]) + 1
        raise SourceError(f"{file}, row {row}: rows are not sorted by user and split; {_REBUILD}.")
    return user, found["item"].astype(np.int32), split


def _of_split(users: np.ndarray, items: np.ndarray, chosen: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """The chosen items of each of `count` users."""
    ends = np.cumsum(np.bincount(users[chosen], minlength=count))
    return tuple(np.split(items[chosen], ends[:-1]))


def _rows(users: np.ndarray, items: np.ndarray, places: np.ndarray, starts: np.ndarray) -> Rows:
    """A row for each of the interactions at `places`, with all before it as history.

    starts: [users] the place of each user's first interaction.
    """
    of = users[places].astype(np.int64)
    histories = tuple(items[start:end] for start, end in zip(starts[of], places, strict=True))
    return Rows(of, histories, items[places])
