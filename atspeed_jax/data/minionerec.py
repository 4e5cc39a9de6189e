"""The CSV files of MiniOneRec, a row per line, and its info file.

train/*.csv, valid/*.csv, test/*.csv, or *train*.csv, ... in the directory itself
    user_id, history_item_id "[12, 7]", item_id, and optionally history_item_sid
    "['<a_1><b_2>', ...]", item_sid and titles
info/*.txt or *.txt, or index/<ds>.index.json
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import re
from pathlib import Path

from atspeed_jax.data.files import ReadSettings, Row, source_of_rows, titles_of
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.items.index_file import read_index
from atspeed_jax.items.item_index import ItemIndex, SourceError
from atspeed_jax.items.spelling import default_spelling, spell

_COLUMNS = ("user_id", "history_item_id", "item_id")
_LONGEST = 2**24  # characters of a cell


def read_minionerec(directory: Path, settings: ReadSettings, needs: str) -> Source:
    """Reads rows of MiniOneRec. An id that a row gives must be that of the index.

    Raises:
      SourceError: a missing or malformed file, or a row that disagrees with the index;
        it names file, line and content.
    """
    files = {split: _file_of(directory, split, settings, needs) for split in SPLITS}
    index_file = _index_file(directory, settings, needs)
    index = read_index(index_file, settings.index)
    if index_file.name.endswith(".index.json"):
        titles = titles_of(index_file.with_name(index_file.name.replace(".index.json", ".item.json")), index)
        index = dataclasses.replace(index, titles=titles)
    ids = _texts(index)
    cut = settings.index.levels is not None
    rows = {split: _read_csv(file, ids, index_file, cut=cut) for split, file in files.items()}
    return source_of_rows(settings.dataset or directory.resolve().name, index, rows)


def csv_files(directory: Path, split: str, dataset: str | None) -> list[Path]:
    """The CSV files of a split: in a folder of its name, or named after it."""
    found = [*directory.glob(f"{split}/*.csv"), *(file for file in directory.glob("*.csv") if _is_of(file, split))]
    return sorted(file for file in found if dataset is None or file.name.startswith(dataset))


def _is_of(file: Path, split: str) -> bool:
    """Whether the name of a file has the split as a word."""
    return split in re.split(r"[^A-Za-z]+", file.stem)


def _file_of(directory: Path, split: str, settings: ReadSettings, needs: str) -> Path:
    found = csv_files(directory, split, settings.dataset)
    return _only(found, directory, f"{split} CSV", settings, needs)


def _index_file(directory: Path, settings: ReadSettings, needs: str) -> Path:
    """The index; without one the info file."""
    for patterns in (("*.index.json", "index/*.index.json"), ("*.txt", "info/*.txt")):
        found = sorted(file for pattern in patterns for file in directory.glob(pattern))
        found = [file for file in found if settings.dataset is None or file.name.startswith(settings.dataset)]
        if found:
            return _only(found, directory, "index or info", settings, needs)
    raise SourceError(f"{directory}: no *.index.json and no info file *.txt says which items the ids are. {needs}")


def _only(found: list[Path], directory: Path, what: str, settings: ReadSettings, needs: str) -> Path:
    if len(found) != 1:
        names = ", ".join(str(file.relative_to(directory)) for file in found) or "none"
        which = "" if settings.dataset is None else f" whose names begin with config.data.dataset={settings.dataset!r}"
        remedy = "Set config.data.dataset to what the names of one dataset begin with." if found else needs
        raise SourceError(f"{directory}: needs one {what} file{which}, found: {names}. {remedy}")
    return found[0]


def _texts(index: ItemIndex) -> list[str]:
    """The id of every item as one text."""
    patterns = index.spelling or default_spelling(index.codes.shape[1])
    return ["".join(spell(*pair) for pair in zip(patterns, codes, strict=True)) for codes in index.codes.tolist()]


def _read_csv(file: Path, ids: list[str], index_file: Path, *, cut: bool) -> list[Row]:
    """The rows of a file."""
    csv.field_size_limit(_LONGEST)
    rows = []
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        reader = csv.DictReader(text)
        if missing := [column for column in _COLUMNS if column not in (reader.fieldnames or ())]:
            raise SourceError(
                f"{file}, line 1: has columns {reader.fieldnames}, but not {missing[0]}; expected "
                f"{', '.join(_COLUMNS)}."
            )
        try:
            for cells in reader:
                row = _row(f"{file}, line {reader.line_num}", cells)
                _check_ids(row, cells, ids, index_file, cut=cut)
                rows.append(row)
        except csv.Error as error:
            raise SourceError(f"{file}, line {reader.line_num}: no CSV ({error}).") from error
    return rows


def _row(where: str, cells: dict) -> Row:
    history, target = _list(cells["history_item_id"]), str(cells["item_id"]).strip()
    if (
        history is None
        or not all(type(item) is int for item in history)
        or not (target.isascii() and target.isdigit())
        or not cells["user_id"]
    ):
        content = {name: cells[name] for name in _COLUMNS}
        raise SourceError(f"{where}: {content}; expected a user, a list of items such as [12, 7, 3041], and an item.")
    return Row(where, cells["user_id"], history, int(target))


def _check_ids(row: Row, cells: dict, ids: list[str], index_file: Path, *, cut: bool) -> None:
    """Raises SourceError for an id of the row that is not that of the index, whose ids
    may be cut to their first codes.
    """
    given = [(row.target, cells.get("item_sid"))]
    if cells.get("history_item_sid"):
        history = _list(cells["history_item_sid"])
        if history is None or len(history) != len(row.history):
            raise SourceError(
                f"{row.where}: history_item_sid {cells['history_item_sid']!r}; expected a list of "
                f"{len(row.history)} ids, one per item of history_item_id."
            )
        given += zip(row.history, history, strict=True)
    for item, text in given:
        if text and 0 <= item < len(ids) and ids[item] != (str(text)[: len(ids[item])] if cut else text):
            raise SourceError(
                f"{row.where}: item {item} has the id {text!r}, but {ids[item]!r} in {index_file}; take both "
                "files from one dataset."
            )


def _list(text: str | None) -> list | None:
    """A list written as in Python; None for another text."""
    try:
        value = ast.literal_eval(text or "")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None
