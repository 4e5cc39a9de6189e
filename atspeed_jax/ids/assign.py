"""Ids for new items of a catalog that has ids: codebooks and vectors stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from atspeed_jax.ids.collisions import groups, resolve
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.given import file_vectors
from atspeed_jax.ids.model import CODEBOOKS_FILE, IdsModel, read_model
from atspeed_jax.ids.tables import ItemTable, index_bytes, item_table, read_columns, read_items
from atspeed_jax.ids.vectors import AUTO, COOCCURRENCE, GIVEN, ways_to_text
from atspeed_jax.items.data_directory import INDEX, ITEMS
from atspeed_jax.utils.files import check_writable, write_bytes

Say = Callable[[str], None]

_SHOWN = 5  # names in a line about items that collide
_TABS = (".tsv", ".tsv.gz")
_COMMAS = (".csv", ".csv.gz")


def assign(
    directory: Path,
    file: Path,
    vectors: str,
    *,
    index: str | None,
    output: str | None,
    only_listed: bool,
    overwrite: bool,
    say: Say,
) -> None:
    """Writes the index of a catalog that has grown.

    Args:
      directory: with codebooks and the index of the known items.
      file: with items, known or new.
      vectors: of the listed items, a file for ids of given vectors, else "auto".
      index: of the known items instead of that of the directory.
      output: index to write.
      only_listed: see `leave_out` of `grow`.
      overwrite: whether `output` may exist.
      say: takes a line.

    Raises:
      IdsError: no output, one that exists, or items that cannot get ids. Nothing is
        written then.
      ValueError: an output that cannot be written.
    """
    if output is None:
        raise IdsError("--assign needs --output=FILE.parquet, the index to write")
    place = Path(output)
    check_writable("--output", place)
    if place.exists() and not overwrite:
        raise IdsError(f"--output={place} exists already; give another file, or pass --overwrite to replace it")
    model = read_model(directory / CODEBOOKS_FILE)
    if vectors != AUTO and model.space.kind != GIVEN:
        raise IdsError(f"--vectors={vectors}: the ids of {directory} were made of {model.space.kind}; leave it out")
    known = read_known(Path(index) if index else directory / INDEX)
    listed = read_new(file, pa.array(known.items.names).type)
    if model.space.kind == COOCCURRENCE and not set(listed.names) <= set(known.items.names):
        raise IdsError(
            f"the ids of {directory} were made of co-occurrence alone, and a new item has no interactions: "
            f"{ways_to_text(read_items(directory / ITEMS))}, and train a new run"
        )
    given = None if vectors == AUTO else Path(vectors)
    grown = grow(model, known, listed, vectors=given, leave_out=only_listed, say=say)
    write_bytes(place, index_bytes(grown.numbers, grown.items, grown.codes, model.level_sizes(grown.codes)))
    for line in (*grown.lines(model.config.collisions), f"written: {place}"):
        say(line)


@dataclass(frozen=True, eq=False)
class KnownIds:
    """An index that exists.

    Attributes:
      numbers: of its items.
      items: names and titles; no texts.
      codes: [items, L] int32.
    """

    numbers: np.ndarray
    items: ItemTable
    codes: np.ndarray


def read_known(path: Path) -> KnownIds:
    """Reads an index file.

    Raises:
      IdsError: a missing or damaged file, or ids of several lengths.
    """
    remedy = "make ids first"
    table = read_columns(path, ("item", "name", "codes"), remedy)
    items = item_table(path, table)
    codes = table["codes"].to_pylist()
    if not all(codes) or len({len(code) for code in codes}) != 1:
        raise IdsError(f"{path} has ids of several lengths; {remedy} again")
    return KnownIds(table["item"].to_numpy(), items, np.array(codes, np.int32))


def read_new(path: Path, name_type: pa.DataType) -> ItemTable:
    """Reads the items of a catalog that has grown.

    The column name, or item without it, is what the user calls an item. Columns title,
    text, category, brand and vector are read where the file has them.

    Args:
      path: of a *.csv, *.tsv or *.parquet file.
      name_type: of the names of the known items.

    Raises:
      IdsError: a missing or damaged file, no column of names, names of another type, or
        an item twice.
    """
    if path.name.endswith((*_COMMAS, *_TABS)):
        table = _read_text(path, name_type)
    elif path.suffix == ".parquet":
        table = read_columns(path, (), "give the new items")
    else:
        raise IdsError(f"--assign={path}: unknown form; expected a .csv, .tsv or .parquet file")
    name = next((column for column in ("name", "item") if column in table.column_names), None)
    if name is None:
        raise IdsError(f"{path} has columns {table.column_names}; expected name or item with the names of items")
    try:
        names = table[name].cast(name_type)
    except pa.ArrowException as error:
        raise IdsError(f"{path}: names that are no {name_type} as those of the known items ({error})") from error
    others = {column: table[column] for column in table.column_names if column not in ("name", "item")}
    return item_table(path, pa.table({"name": names, **others}))


def _read_text(path: Path, name_type: pa.DataType) -> pa.Table:
    """Reads a file with commas or tabs; texts stay texts, whatever they look like."""
    texts = dict.fromkeys(("title", "text", "category", "brand", "price", "vector"), pa.string())
    convert = pcsv.ConvertOptions(
        column_types={**texts, "name": name_type, "item": name_type}, strings_can_be_null=True
    )
    parse = pcsv.ParseOptions(delimiter="\t" if path.name.endswith(_TABS) else ",", newlines_in_values=True)
    if not path.is_file():
        raise IdsError(f"--assign={path}: no such file; give the new items")
    try:
        table = pcsv.read_csv(path, parse_options=parse, convert_options=convert)
    except (OSError, pa.ArrowException) as error:
        raise IdsError(
            f"{path} cannot be read ({error}); expected a header, then an item per line, in UTF-8"
        ) from error
    if "vector" not in table.column_names:
        return table
    rows = []
    for line, text in enumerate(table["vector"].to_pylist(), start=2):
        try:
            rows.append(None if text is None else [float(number) for number in json.loads(text)])
        except (ValueError, TypeError) as error:
            raise IdsError(f"{path}, line {line}: vector {text!r} is no JSON list of numbers") from error
    place = table.column_names.index("vector")
    return table.set_column(place, "vector", pa.array(rows, pa.list_(pa.float32())))


@dataclass(frozen=True, eq=False)
class Grown:
    """Ids of a catalog that has grown.

    Attributes:
      numbers: of the items, ascending.
      items: their names and titles.
      codes: [items, L] int32.
      new: number of new items.
      collided: names of the new items whose nearest codes another item has.
    """

    numbers: np.ndarray
    items: ItemTable
    codes: np.ndarray
    new: int
    collided: Sequence

    def lines(self, how: str) -> list[str]:
        """Says what has been done, for `IdsConfig.collisions` being `how`."""
        said = [f"{self.new} new items, {len(self.items)} in all"]
        if self.collided:
            done = {
                "keep": "they share an id",
                "further": "the further code tells them apart",
                "move": "they got the nearest ids that are free",
            }[how]
            shown = ", ".join(map(repr, self.collided[:_SHOWN])) + ", ..." * (len(self.collided) > _SHOWN)
            said.append(f"{len(self.collided)} new items have the codes of another item, and {done}: {shown}")
        return said


def grow(
    model: IdsModel,
    known: KnownIds,
    listed: ItemTable,
    *,
    vectors: Path | None = None,
    leave_out: bool = False,
    say: Say = lambda _: None,
) -> Grown:
    """Gives the new items of a file ids. Known items keep number and codes.

    Args:
      model: that gave the known ids.
      known: items that have ids.
      listed: items of the file, known or new.
      vectors: a file with the vectors of the listed items, for ids of given vectors.
      leave_out: whether known items that the file does not list are left out. No other
        item gets their ids.
      say: takes a line about items that are left out.

    Raises:
      IdsError: new items without what their vectors are made of.
    """
    row_of = {name: row for row, name in enumerate(known.items.names)}
    new = [row for row, name in enumerate(listed.names) if name not in row_of]
    codes, collided = known.codes, []
    if new:
        codes, collided = _codes_of_new(model, known, listed, new, vectors)
    kept = np.ones(len(known.items), bool)
    if leave_out:
        kept[:] = False
        kept[[row_of[name] for name in listed.names if name in row_of]] = True
        say(f"{int((~kept).sum())} known items are not in {listed.file.name} and are left out")
    if not kept.any() and not new:
        raise IdsError(f"{listed.file}: no items are left")
    rows = np.concatenate([np.flatnonzero(kept), np.arange(len(known.items), len(codes))])
    titles = dict(zip(listed.names, listed.titles, strict=True))
    names = (*known.items.names, *(listed.names[row] for row in new))
    old = (*known.items.titles, *(None for _ in new))
    numbers = np.concatenate([known.numbers, known.numbers.max() + 1 + np.arange(len(new))])
    items = ItemTable(
        listed.file,
        tuple(names[row] for row in rows),
        tuple(titles.get(names[row]) or old[row] for row in rows),
        ("",) * len(rows),
        None,
    )
    return Grown(numbers[rows], items, codes[rows], len(new), collided)


def _codes_of_new(
    model: IdsModel, known: KnownIds, listed: ItemTable, new: Sequence[int], file: Path | None
) -> tuple[np.ndarray, list]:
    """Codes of known and new items, and the names of new items that collide."""
    fresh = listed.take(new)
    given = file_vectors(file, listed)[new] if model.space.kind == GIVEN and file else None
    latents = model.latents(model.space.of_new(fresh, given))
    nearest = model.codebooks.assign(latents)
    levels, count = model.codebooks.levels, len(known.items)
    group = groups(np.concatenate([known.codes[:, :levels], nearest]))
    repeated = np.bincount(group) > 1
    collided = [name for name, shared in zip(fresh.names, repeated[group[count:]], strict=True) if shared]
    wide = np.full((len(new), known.codes.shape[1]), -1, np.int32)
    wide[:, :levels] = nearest
    together = np.concatenate([known.codes, wide])
    return resolve(together, latents, model.codebooks, model.config.collisions, fixed=count), collided
