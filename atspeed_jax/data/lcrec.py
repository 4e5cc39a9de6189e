"""The directory of LC-Rec, LETTER and MiniOneRec: <ds>.index.json and interactions.

    <ds>.inter.json     {"0": [12, 7, 3041], ...}     user -> items, oldest first
    <ds>.train.inter, <ds>.valid.inter, <ds>.test.inter
                        user_id:token TAB item_id_list:token_seq TAB item_id:token
                        41            TAB 12 7 3041              TAB 5
    <ds>.item.json      {"0": {"title": "..."}, ...}  titles, optional

Items count from 0.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from atspeed_jax.data.files import (
    ReadSettings,
    Row,
    check_items,
    leave_one_out,
    only_dataset,
    source_of_rows,
    titles_of,
)
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.items.index_file import read_index, read_object
from atspeed_jax.items.index_formats import lines
from atspeed_jax.items.item_index import ItemIndex, SourceError

INDEX_ENDINGS = (".index.json", ".index.jsonl", ".index.parquet")
INDEX_NEEDS = "<ds>.index.json (or .index.jsonl or .index.parquet)"
_COLUMNS = ("user_id", "item_id_list", "item_id")


def read_lcrec(directory: Path, settings: ReadSettings, needs: str) -> Source:
    """Reads <ds>.inter.json, whose last two items of each user are held out.

    Raises:
      SourceError: a missing or malformed file; it names file and entry.
    """
    name = only_dataset(directory, ".inter.json", settings, needs)
    index = index_beside(directory, name, settings)
    file = directory / f"{name}.inter.json"
    users = read_object(file, "user", 'expected {"0": [12, 7, 3041], ...}, user -> items')
    for user, items in users.items():
        if not isinstance(items, list) or not all(type(item) is int for item in items):
            raise SourceError(f"{file}: user {user!r} has {items!r}; expected a list of items such as [12, 7, 3041].")
        check_items(f"{file}, user {user!r}", items, len(index.codes))
    splits = leave_one_out(np.array(items, np.int32) for items in users.values())
    if not any(map(len, splits["train"])):
        raise SourceError(f"{file}: no interactions at all; training needs at least one.")
    return Source(name, index.codes, *splits.values(), spelling=index.spelling, titles=index.titles, names=index.names)


def read_lcrec_rows(directory: Path, settings: ReadSettings, needs: str) -> Source:
    """Reads <ds>.train.inter, <ds>.valid.inter and <ds>.test.inter, a row per line.

    A history may be empty.

    Raises:
      SourceError: a missing or malformed file; it names file, line and content.
    """
    name = only_dataset(directory, ".train.inter", settings, needs)
    index = index_beside(directory, name, settings)
    return source_of_rows(name, index, {split: _read_inter(directory / f"{name}.{split}.inter") for split in SPLITS})


def index_beside(directory: Path, name: str, settings: ReadSettings) -> ItemIndex:
    """Reads the index of a dataset, and the titles of <ds>.item.json if it is there.

    Raises:
      SourceError: no index, a malformed index, or titles of other items.
    """
    found = [file for ending in INDEX_ENDINGS if (file := directory / f"{name}{ending}").is_file()]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise SourceError(f"{directory}: needs one index of the items, {name}{INDEX_NEEDS[4:]}; found: {names}.")
    index = read_index(found[0], settings.index)
    titles = titles_of(directory / f"{name}.item.json", index)
    return dataclasses.replace(index, titles=titles or index.titles)


def _read_inter(file: Path) -> list[Row]:
    """The rows of a file."""
    if not file.is_file():
        raise SourceError(f"{file}: no such file; train, valid and test are all needed.")
    numbered = lines(file)
    _, header = next(numbered, (0, ""))
    names = [column.partition(":")[0].strip() for column in header.split("\t")]
    if missing := [column for column in _COLUMNS if column not in names]:
        expected = "user_id:token TAB item_id_list:token_seq TAB item_id:token"
        raise SourceError(f"{file}, line 1: {header!r} has no column {missing[0]}; expected {expected}.")
    user_at, history_at, target_at = map(names.index, _COLUMNS)
    rows = []
    for number, line in numbered:
        where, fields = f"{file}, line {number}", line.split("\t")
        items = [*fields[history_at].split(), fields[target_at].strip()] if len(fields) == len(names) else [""]
        if not all(item.isascii() and item.isdigit() for item in items):
            raise SourceError(f"{where}: {line!r}; expected a user, items and an item such as 41 TAB 12 7 3041 TAB 5.")
        *history, target = map(int, items)
        rows.append(Row(where, fields[user_at].strip(), history, target))
    return rows
