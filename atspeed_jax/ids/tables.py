"""The directory that ids are made in: items and interactions in, index and codebooks out.

items.parquet           row n is item n: item, name, title, text, category, brand, vector
interactions.parquet    user, item, time, split (0 train, 1 valid, 2 test)
index.parquet           row n is item n: item, name, title, codes
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.items.data_directory import ITEMS, SPLITS
from atspeed_jax.items.index_formats import CODEBOOKS, LEVEL_SIZES
from atspeed_jax.items.names import Name, NamesError, check_names

TEXT_COLUMNS = ("title", "brand", "category", "text")  # in this order in the text of an item
TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")
_MAKE = "in the checkout, `python -m launch.ingest` makes it"


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Items, one per row.

    Attributes:
      file: that they come from, for messages.
      names: what the user calls each item.
      titles: of each item, None where it has none.
      texts: title, brand, category and text of each item in one text; may be empty.
      vectors: the column of vectors; None without it.
    """

    file: Path
    names: tuple[Name, ...]
    titles: tuple[str | None, ...]
    texts: tuple[str, ...]
    vectors: pa.ChunkedArray | None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int]) -> ItemTable:
        """Returns the items of some rows."""
        return ItemTable(
            self.file,
            tuple(self.names[row] for row in rows),
            tuple(self.titles[row] for row in rows),
            tuple(self.texts[row] for row in rows),
            None if self.vectors is None else self.vectors.take(pa.array(rows, pa.int64())),
        )


def read_items(path: Path) -> ItemTable:
    """Reads items.parquet of a data directory.

    Raises:
      IdsError: a missing file or column, an item twice, or items out of order.
    """
    table = read_columns(path, ("item", "name"), _MAKE)
    numbers = table["item"].to_numpy()
    if not np.array_equal(numbers, np.arange(len(numbers))):
        row = int(np.argmax(numbers != np.arange(len(numbers))))
        raise IdsError(f"{path}: row {row} is item {numbers[row]}; row n must be item n. Make the file again.")
    return item_table(path, table)


def item_table(path: Path, table: pa.Table) -> ItemTable:
    """Makes items of a table with the column name, and title, text, category, brand and
    vector where it has them.

    Raises:
      IdsError: no rows, a name that is no text or whole number, or an item twice.
    """
    if not table.num_rows:
        raise IdsError(f"{path}: no items; expected one or more rows.")
    names = table["name"].to_pylist()
    try:
        check_names(names, str(path))
    except NamesError as error:
        raise IdsError(f"{error}. Keep one row per item.") from error
    columns = {name: table[name].to_pylist() for name in TEXT_COLUMNS if name in table.column_names}
    parts = zip(*columns.values(), strict=True) if columns else ((),) * len(names)
    texts = tuple(" ".join(str(part).strip() for part in one if part is not None).strip() for one in parts)
    titles = tuple(columns.get("title", [None] * len(names)))
    return ItemTable(path, tuple(names), titles, texts, table["vector"] if "vector" in table.column_names else None)


def read_columns(path: Path, columns: Sequence[str], remedy: str, *, others: bool = True) -> pa.Table:
    """Reads a parquet file that must have some columns.

    Args:
      path: of the file.
      columns: it must have.
      remedy: what to do about a missing file.
      others: whether its other columns are read too.

    Raises:
      IdsError: a missing or damaged file, or a missing column.
    """
    if not path.is_file():
        raise IdsError(f"{path}: no such file; {remedy}.")
    try:
        names = pq.read_schema(path).names
        if missing := [name for name in columns if name not in names]:
            raise IdsError(f"{path} has columns {names}, but not {missing}; {remedy}.")
        return pq.read_table(path, columns=None if others else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise IdsError(f"{path} cannot be read as parquet ({error}); {remedy}.") from error


@dataclass(frozen=True, eq=False)
class Interactions:
    """The log of a data directory, one entry per interaction.

    Attributes:
      users: [N] numbers of users.
      items: [N] numbers of items.
      split: [N] 0 for train, 1 for valid, 2 for test.
    """

    users: np.ndarray
    items: np.ndarray
    split: np.ndarray


def read_interactions(path: Path, items: int) -> Interactions:
    """Reads interactions.parquet of a data directory.

    Raises:
      IdsError: a missing file or column, or an item that the catalog does not have.
    """
    table = read_columns(path, ("user", "item", "split"), _MAKE, others=False)
    found = Interactions(*(table[name].to_numpy() for name in ("user", "item", "split")))
    wrong = (found.items < 0) | (found.items >= items)
    if wrong.any():
        row = int(wrong.argmax())
        raise IdsError(
            f"{path}: row {row} is of item {found.items[row]}, but {ITEMS} has {items} items; make both again."
        )
    return found


def index_bytes(
    numbers: Sequence[int] | np.ndarray,
    items: ItemTable,
    codes: np.ndarray,
    level_sizes: tuple[int, ...],
    codebooks: bytes,
) -> bytes:
    """Returns the content of an index file.

    Args:
      numbers: of the items, one per row.
      items: their names and titles.
      codes: [rows, L] of the items.
      level_sizes: codes per level that a target should have tokens for.
      codebooks: content of the file of codebooks; the index keeps its fingerprint.
    """
    columns = {
        "item": pa.array(numbers, pa.int64()),
        "name": pa.array(items.names),
        "title": pa.array(items.titles, pa.string()),
        "codes": pa.array(codes.astype(np.int32).tolist(), pa.list_(pa.int32())),
    }
    buffer = io.BytesIO()
    made_with = {LEVEL_SIZES: json.dumps(level_sizes), CODEBOOKS: fingerprint(codebooks)}
    table = pa.table(columns).replace_schema_metadata(made_with)
    pq.write_table(table, buffer)
    return buffer.getvalue()


def fingerprint(codebooks: bytes) -> str:
    """Returns what an index says of the codebooks that it was made with."""
    return hashlib.sha256(codebooks).hexdigest()[:16]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors [N, D] as float32, each scaled to length 1 unless it is 0."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
