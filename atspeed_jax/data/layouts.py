"""The layouts of data directories, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atspeed_jax.data.files import PLAIN, ReadSettings
from atspeed_jax.data.ingested import read_ingested
from atspeed_jax.data.lcrec import INDEX_NEEDS, read_lcrec, read_lcrec_rows
from atspeed_jax.data.minionerec import csv_files, read_minionerec
from atspeed_jax.data.p5 import SEQUENCES, read_p5
from atspeed_jax.data.sources import SPLITS, Source, read_atspeed
from atspeed_jax.items.data_directory import INDEX, INTERACTIONS, RECORD
from atspeed_jax.items.item_index import SourceError

_SHOWN = 20  # names of files in a message


@dataclass(frozen=True)
class Layout:
    """A layout of a data directory.

    Attributes:
      needs: the files it must hold.
      fits: whether a directory has the files that no other layout has.
      read: (directory, settings, `needs` as a sentence) -> source.
    """

    needs: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, ReadSettings, str], Source]


def _has(pattern: str) -> Callable[[Path], bool]:
    return lambda directory: any(directory.glob(pattern))


LAYOUTS = {
    "atspeed": Layout(
        "sequential_{train,valid,test}.txt and one *.json index",
        _has("sequential_train.txt"),
        lambda directory, settings, needs: read_atspeed(directory, settings.index),
    ),
    "lcrec": Layout(f"{INDEX_NEEDS} and <ds>.inter.json", _has("*.inter.json"), read_lcrec),
    "lcrec_rows": Layout(
        f"{INDEX_NEEDS} and <ds>.train.inter, <ds>.valid.inter, <ds>.test.inter",
        _has("*.train.inter"),
        read_lcrec_rows,
    ),
    "minionerec": Layout(
        "one CSV in each of train/, valid/ and test/ (or *train*.csv, ...), and an info file info/*.txt or an "
        "index/<ds>.index.json",
        lambda directory: all(csv_files(directory, split, None) for split in SPLITS),
        read_minionerec,
    ),
    "ingested": Layout(
        f"{RECORD}, {INTERACTIONS} and items.parquet of the checkout's launch.ingest, and {INDEX} of launch.build_ids",
        _has(RECORD),
        read_ingested,
    ),
    "p5": Layout(f"{SEQUENCES} and {INDEX_NEEDS}", _has(SEQUENCES), read_p5),
}


def read_source(layout: str, data_dir: Path | str, settings: ReadSettings = PLAIN) -> Source:
    """Reads a data directory.

    Args:
      layout: a name of LAYOUTS; or "auto", the only layout whose files are found.
      data_dir: the directory.
      settings: about its files.

    Raises:
      SourceError: no directory, a layout that is not clear, or a missing or malformed
        file.
    """
    directory = Path(data_dir)
    if layout == "atspeed":  # has messages of its directory
        return read_atspeed(directory, settings.index)
    if not directory.is_dir():
        raise SourceError(f"{directory}: no such data directory; give --data_dir the directory that holds the data.")
    if layout == "auto":
        layout = _detected(directory)
    known = LAYOUTS[layout]
    return known.read(directory, settings, f"The layout {layout!r} needs {known.needs}.")


def needs(layout: str) -> str:
    """The files that a layout needs, for messages; of "auto" the names of all layouts."""
    return LAYOUTS[layout].needs if layout in LAYOUTS else f"the files of one layout of {', '.join(LAYOUTS)}"


def _detected(directory: Path) -> str:
    """The only layout whose files a directory has."""
    found = [name for name, layout in LAYOUTS.items() if layout.fits(directory)]
    if len(found) == 1:
        return found[0]
    files = sorted(file.name + "/" * file.is_dir() for file in directory.iterdir())
    shown = ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")
    if found:
        choices = "; ".join(f"{name!r} reads {LAYOUTS[name].needs}" for name in found)
        raise SourceError(
            f"{directory}: files of {len(found)} layouts: set config.data.source. {choices}. Found: {shown}."
        )
    known = "; ".join(f"{name!r} needs {layout.needs}" for name, layout in LAYOUTS.items())
    raise SourceError(
        f"{directory}: the files are of no known layout. {known}. Found: {shown or 'nothing'}. A catalog alone, such "
        "as parquet of pid and sid, is an index: name it <ds>.index.parquet and put the users' items beside it as "
        "<ds>.inter.json, in which item n is its row n from 0 on."
    )
