"""Ids for new items of a catalog that has ids: codebooks and vectors stay as they are."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from atspeed_jax.ids.collisions import groups, resolve
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.given import file_vectors
from atspeed_jax.ids.model import CODEBOOKS_FILE, IdsModel, read_model
from atspeed_jax.ids.tables import ItemTable, fingerprint, index_bytes, item_table, read_items
from atspeed_jax.ids.vectors import AUTO, COOCCURRENCE, GIVEN, ways_to_text
from atspeed_jax.ingest.log import NUMBER
from atspeed_jax.ingest.new_items import read_new_items
from atspeed_jax.items.data_directory import INDEX, ITEMS
from atspeed_jax.items.index_file import read_index_with_gaps
from atspeed_jax.items.item_index import ItemIndex, SourceError
from atspeed_jax.utils.files import check_writable, locked, write_bytes

Say = Callable[[str], None]

_SHOWN = 5  # names in a line about items that collide


def assign(
    directory: Path,
    file: str,
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
      file: with items, known or new; or a pattern of files.
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
    with _claimed(Path(output), overwrite) as place:
        known, listed, model, stored = _read(directory, file, vectors, index, say)
        given = None if vectors == AUTO else Path(vectors)
        grown = grow(model, known, listed, vectors=given, leave_out=only_listed, say=say)
        sizes = model.level_sizes(grown.codes)
        write_bytes(place, index_bytes(grown.numbers, grown.items, grown.codes, sizes, stored))
    for line in (*grown.lines(model.config.collisions), f"written: {place}"):
        say(line)


@contextlib.contextmanager
def _claimed(place: Path, overwrite: bool) -> Iterator[Path]:
    """Holds an output while the block runs; see `assign`."""
    if place.suffix != ".parquet":
        raise IdsError(f"--output={place}: an index is a parquet file; give a name that ends in .parquet")
    check_writable("--output", place)
    with locked(place.with_name(f".{place.name}.lock")) as is_first:
        if not is_first:
            raise IdsError(f"--output={place} is being written by another process; wait for it, or give another file")
        if place.exists() and not overwrite:
            raise IdsError(f"--output={place} exists already; give another file, or pass --overwrite to replace it")
        yield place


def _read(
    directory: Path, file: str, vectors: str, index: str | None, say: Say
) -> tuple[ItemIndex, ItemTable, IdsModel, bytes]:
    """Reads what `assign` needs: known and listed items, and the codebooks as such and as bytes."""
    codebooks = directory / CODEBOOKS_FILE
    model, stored = read_model(codebooks), codebooks.read_bytes()
    if vectors != AUTO and model.space.kind != GIVEN:
        raise IdsError(f"--vectors={vectors}: the ids of {directory} were made of {model.space.kind}; leave it out")
    known = read_known(Path(index) if index else directory / INDEX, fingerprint(stored))
    listed = read_listed(file, directory, known, say)
    if model.space.kind == COOCCURRENCE and not set(listed.names) <= set(known.names or ()):
        raise IdsError(
            f"the ids of {directory} were made of co-occurrence alone, and a new item has no interactions: "
            f"{ways_to_text(read_items(directory / ITEMS))}, and train a new run"
        )
    return known, listed, model, stored


def read_known(path: Path, codebooks: str) -> ItemIndex:
    """Reads the index of the known items.

    Args:
      path: of the index.
      codebooks: fingerprint of those that give new items their ids.

    Raises:
      IdsError: a file that is no such index, or ids of other codebooks.
    """
    try:
        known = read_index_with_gaps(path)
    except SourceError as error:
        raise IdsError(f"{error} Make ids first.") from error
    if known.names is None or known.model_tokens is not None:
        raise IdsError(f"{path}: an index without names and codes; give one that launch.build_ids of the checkout made")
    if known.codebooks not in (None, codebooks):
        raise IdsError(
            f"{path} was made with other codebooks than {CODEBOOKS_FILE} of the directory; give the index that belongs "
            "to them, or make ids again with --overwrite"
        )
    return known


def read_listed(file: str, directory: Path, known: ItemIndex, say: Say) -> ItemTable:
    """Reads the items of a catalog that has grown (`ingest.new_items`).

    Args:
      file: of the items.
      directory: whose ingest.json says how its item file was read.
      known: items that have ids; names are numbers here if they are numbers there.
      say: takes a line.

    Raises:
      IngestError: a file that cannot be read.
      IdsError: names that are no numbers as the known ones.
    """
    table = read_new_items(file, directory, say)
    if isinstance((known.names or ("",))[0], int):
        numbers = [int(name) if re.fullmatch(NUMBER, name) else name for name in table["name"].to_pylist()]
        if other := [name for name in numbers if isinstance(name, str)]:
            raise IdsError(
                f"{file}: item {other[0]!r} ({len(other)} such items) is no whole number, but the known items have "
                f"numbers as names, such as {(known.names or (0,))[0]}; write names as the log does"
            )
        table = table.set_column(table.column_names.index("name"), "name", pa.array(numbers, pa.int64()))
    return item_table(Path(file), table)


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
    known: ItemIndex,
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
    known_names = known.names or ()
    row_of = {name: row for row, name in enumerate(known_names)}
    new = [row for row, name in enumerate(listed.names) if name not in row_of]
    codes, collided = known.codes, []
    if new:
        codes, collided = _codes_of_new(model, known, listed, new, vectors)
    kept = np.ones(len(known_names), bool)
    if leave_out:
        kept[:] = False
        kept[[row_of[name] for name in listed.names if name in row_of]] = True
        say(f"{int((~kept).sum())} known items are not in {listed.file.name} and are left out")
    if not kept.any() and not new:
        raise IdsError(f"{listed.file}: no items are left")
    rows = np.concatenate([np.flatnonzero(kept), np.arange(len(known_names), len(codes))])
    titles = dict(zip(listed.names, listed.titles, strict=True))
    names = (*known_names, *(listed.names[row] for row in new))
    numbers = np.arange(len(known_names)) if known.numbers is None else known.numbers
    numbers = np.concatenate([numbers, numbers.max() + 1 + np.arange(len(new))])
    items = ItemTable(
        listed.file,
        tuple(names[row] for row in rows),
        tuple(titles.get(names[row]) or known.titles.get(int(row)) for row in rows),
        ("",) * len(rows),
        None,
    )
    return Grown(numbers[rows], items, codes[rows], len(new), collided)


def _codes_of_new(
    model: IdsModel, known: ItemIndex, listed: ItemTable, new: Sequence[int], file: Path | None
) -> tuple[np.ndarray, list]:
    """Codes of known and new items, and the names of new items that collide."""
    fresh = listed.take(new)
    given = file_vectors(file, listed)[new] if model.space.kind == GIVEN and file else None
    latents = model.latents(model.space.of_new(fresh, given))
    nearest = model.codebooks.assign(latents)
    levels, count = model.codebooks.levels, len(known.codes)
    group = groups(np.concatenate([known.codes[:, :levels], nearest]))
    repeated = np.bincount(group) > 1
    collided = [name for name, shared in zip(fresh.names, repeated[group[count:]], strict=True) if shared]
    wide = np.full((len(new), known.codes.shape[1]), -1, np.int32)
    wide[:, :levels] = nearest
    together = np.concatenate([known.codes, wide])
    return resolve(together, latents, model.codebooks, model.config.collisions, fixed=count), collided
