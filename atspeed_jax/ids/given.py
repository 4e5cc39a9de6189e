"""Vectors that a file or a column gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.tables import ItemTable, read_columns

_FORMS = "expected FILE.npy, FILE.parquet[:column] or FILE.safetensors[:tensor]"


def column_vectors(items: ItemTable) -> np.ndarray:
    """Returns the column vector of items, [items, D] float32.

    Raises:
      IdsError: no such column, a row without vector, vectors of different widths, or a
        number that is not finite; it names the item.
    """
    if items.vectors is None:
        raise IdsError(f"{items.file} has no column vector; give --vectors a file, or make vectors of texts")
    return _checked(items.file, _rows(items.file, items.vectors, items.names), items.names)


def file_vectors(place: Path, items: ItemTable) -> np.ndarray:
    """Reads vectors [items, D] float32 of a file.

    Row n is item n. A parquet file with a column name is matched by name instead.

    Args:
      place: the file; a column or tensor may follow behind a colon.
      items: whose vectors they are.

    Raises:
      IdsError: another form of file, another number of rows, an item without vector,
        widths that differ, or a number that is not finite.
    """
    text, _, member = str(place).partition(":")
    file = Path(text)
    if not file.is_file():
        raise IdsError(f"{file}: no such file of vectors; {_FORMS}")
    try:
        match file.suffix:
            case ".npy":
                found = np.load(file, allow_pickle=False)
            case ".parquet":
                found = _of_parquet(file, member or "vector", items)
            case ".safetensors":
                found = _of_safetensors(file, member)
            case _:
                raise IdsError(f"{file}: unknown form; {_FORMS}")
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, IdsError):
            raise
        raise IdsError(f"{file} cannot be read ({error}); {_FORMS}") from error
    return _checked(file, found, items.names)


def _of_parquet(file: Path, column: str, items: ItemTable) -> np.ndarray:
    table = read_columns(file, (column,), _FORMS)
    if "name" not in table.column_names:
        return _rows(file, table[column], range(table.num_rows))
    names = table["name"].to_pylist()
    found = _rows(file, table[column], names)
    row_of = {name: row for row, name in enumerate(names)}
    if missing := [name for name in items.names if name not in row_of]:
        raise IdsError(f"{file}: item {missing[0]!r} has no vector ({len(missing)} such items); add it")
    return found[[row_of[name] for name in items.names]]


def _of_safetensors(file: Path, tensor: str) -> np.ndarray:
    with safe_open(file, "np") as found:
        names = list(found.keys())
        if not tensor and len(names) != 1:
            raise IdsError(f"{file}: holds {names}; name one tensor, as {file.name}:{names[0] if names else 'NAME'}")
        if tensor and tensor not in names:
            raise IdsError(f"{file}: holds {names}, but not {tensor!r}")
        return found.get_tensor(tensor or names[0])


def _rows(file: Path, column: pa.ChunkedArray, names: Sequence) -> np.ndarray:
    """Returns a column of lists as a matrix."""
    flat = column.combine_chunks()
    kind = flat.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise IdsError(f"{file}: the column of vectors is {kind}; expected lists of numbers")
    if flat.null_count:
        row = flat.is_null().to_numpy(zero_copy_only=False).argmax()
        raise IdsError(f"{file}: item {names[row]!r} has no vector ({flat.null_count} such items); add or remove it")
    widths = np.asarray(flat.value_lengths()) if not pa.types.is_fixed_size_list(kind) else np.array([kind.list_size])
    if (widths != widths[0]).any():
        row = int((widths != widths[0]).argmax())
        raise IdsError(
            f"{file}: the vector of item {names[row]!r} has {widths[row]} numbers, that of item {names[0]!r} has "
            f"{widths[0]}; all vectors must have one width"
        )
    values = flat.flatten()
    if values.null_count:
        row = int(values.is_null().to_numpy(zero_copy_only=False).argmax()) // int(widths[0])
        raise IdsError(f"{file}: the vector of item {names[row]!r} has a number missing; correct it")
    return values.to_numpy().reshape(len(flat), -1)


def _checked(file: Path, vectors: np.ndarray, names: Sequence) -> np.ndarray:
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise IdsError(f"{file}: vectors of shape {vectors.shape}, {vectors.dtype}; expected [items, numbers]")
    if len(vectors) != len(names):
        raise IdsError(f"{file}: {len(vectors)} vectors for {len(names)} items; row n must be the vector of item n")
    vectors = vectors.astype(np.float32)
    wrong = ~np.isfinite(vectors).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise IdsError(
            f"{file}: the vector of item {names[row]!r} (row {row}) has a number that is not finite, "
            f"{wrong.sum()} such items; correct or remove them"
        )
    return vectors
