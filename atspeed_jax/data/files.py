"""What the readers of several layouts share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from atspeed_jax.data.rows import Rows, joined
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.items.index_file import read_object
from atspeed_jax.items.item_index import AS_IT_IS, IndexSettings, ItemIndex, SourceError
from atspeed_jax.items.titles import TitlesError, titles_in


@dataclasses.dataclass(frozen=True)
class ReadSettings:
    """What a config says about a data directory.

    Attributes:
      dataset: how the names of the files begin, where several datasets lie in one
        directory; None for the only one.
      index: about the item index.
    """

    dataset: str | None = None
    index: IndexSettings = AS_IT_IS


PLAIN = ReadSettings()


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a file of rows.

    Attributes:
      where: file and line, for messages.
      user: name of the user.
      history: items, oldest first.
      target: the item that came next.
    """

    where: str
    user: str
    history: Sequence[int]
    target: int


def only_dataset(directory: Path, ending: str, settings: ReadSettings, needs: str) -> str:
    """Finds the name of the dataset whose files lie in a directory.

    Args:
      directory: that is searched.
      ending: of a file that every dataset has, such as ".inter.json".
      settings: may name the dataset.
      needs: the files of the layout, for messages.

    Raises:
      SourceError: no such file, or files of several datasets.
    """
    found = sorted(file.name.removesuffix(ending) for file in directory.glob(f"*{ending}"))
    if settings.dataset is not None:
        if settings.dataset not in found:
            raise SourceError(
                f"{directory}: no {settings.dataset}{ending}, which config.data.dataset={settings.dataset!r} asks for; "
                f"found: {_listed(found)}. {needs}"
            )
        return settings.dataset
    if len(found) != 1:
        remedy = "set config.data.dataset to one of them" if found else needs
        raise SourceError(f"{directory}: files *{ending} of {len(found)} datasets: {_listed(found)}; {remedy}")
    return found[0]


def leave_one_out(sequences: Iterable[np.ndarray]) -> dict[str, tuple[np.ndarray, ...]]:
    """Splits the items of each user: the last one is the test, the one before it valid.

    A user with fewer than 3 items is trained on and never asked about.
    """
    parts = [
        (items, items[:0], items[:0]) if len(items) < 3 else (items[:-2], items[-2:-1], items[-1:])
        for items in sequences
    ]
    return dict(zip(SPLITS, zip(*parts, strict=True), strict=True))


def source_of_rows(name: str, index: ItemIndex, rows: Mapping[str, Sequence[Row]]) -> Source:
    """Makes a source of rows.

    The training rows of a user are joined to sequences (`rows.joined`), so that every
    item is trained on once. A user whose rows do not join has several: the longest is
    that user's, each other one that of a further user, who is never asked about.

    Args:
      name: of the dataset.
      index: of the items.
      rows: "train", "valid" and "test" -> rows in the order of their file.

    Raises:
      SourceError: a row with an unknown item, or no training rows.
    """
    users: dict[str, int] = {}
    for row in (row for split in SPLITS for row in rows[split]):
        check_items(row.where, (*row.history, row.target), len(index.codes))
        users.setdefault(row.user, len(users))
    if not rows["train"]:
        raise SourceError(f"{name}: no training rows at all; training needs at least one.")
    by_user: list[list[tuple[Sequence[int], int]]] = [[] for _ in users]
    for row in rows["train"]:
        by_user[users[row.user]].append((row.history, row.target))
    found = [joined(one) for one in by_user]
    train = [sequences[0] if sequences else [] for sequences in found]
    train += [sequence for sequences in found for sequence in sequences[1:]]
    held_out = {
        split: Rows.of((users[row.user], row.history, row.target) for row in rows[split]) for split in SPLITS[1:]
    }
    targets = (held_out[split].targets_by_user(len(train)) for split in SPLITS[1:])
    arrays = tuple(np.array(items, np.int32) for items in train)
    return Source(
        name,
        index.codes,
        arrays,
        *targets,
        spelling=index.spelling,
        rows=held_out,
        titles=index.titles,
        names=index.names,
    )


def check_items(where: str, items: Iterable[int], count: int) -> None:
    """Raises SourceError, which says where, for an item that the index does not have."""
    for item in items:
        if not 0 <= item < count:
            raise SourceError(
                f"{where}: item {item} is unknown; the index has items 0..{count - 1}. Correct the line, or add the "
                "item to the index."
            )


def titles_of(file: Path, index: ItemIndex) -> dict[int, str]:
    """Reads titles from {"0": {"title": "...", ...}, ...}.

    Returns:
      the titles of the items that have one; none if the file does not exist.

    Raises:
      SourceError: a malformed file, or other items than those of the index.
    """
    if not file.is_file():
        return {}
    entries = read_object(file, expected='expected {"0": {"title": "...", ...}, ...}')
    items = {str(item) for item in range(len(index.codes))}
    if odd := entries.keys() ^ items:
        one = min(odd, key=lambda key: (len(key), key))
        has, lacks = ("an entry", "the index has none") if one in entries else ("no entry", "one in the index")
        raise SourceError(
            f"{file}: {has} for item {one}, but {lacks} ({len(entries)} entries, {len(items)} items in the index); "
            "take both files from one dataset, or remove this file to go without titles."
        )
    try:
        return titles_in(file, entries, len(items))
    except TitlesError as error:
        raise SourceError(str(error)) from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
