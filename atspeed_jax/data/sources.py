"""Sources of interactions.

Each ends as a `Source`: item ids, and per user three lists of items. Here are AtSpeed's
layout and the synthetic source, which are split by global time; other layouts have
files of their names (`data.layouts`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atspeed_jax.data.rows import Rows
from atspeed_jax.data.simulate import SyntheticConfig, simulate
from atspeed_jax.data.split import k_core, keep_rated, renumber, sequences, split_by_time
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.index_file import AS_IT_IS, IndexSettings, SourceError, read_index
from atspeed_jax.items.names import Name
from atspeed_jax.items.quantize import residual_kmeans

SPLITS = ("train", "valid", "test")
_NUMBER = re.compile(r"[0-9]{1,18}")
_LAYOUT = (
    "Expected: sequential_train.txt, sequential_valid.txt, sequential_test.txt and exactly one *.json index of the "
    "items."
)


@dataclass(frozen=True, eq=False)
class Source:
    """Interactions ready to be stored.

    Attributes:
      name: of the dataset.
      codes: [items, L] int32, the id of every item.
      train, valid, test: per user (same order in all three) an int32 array of items
        0..items-1 in time order; may be empty.
      spelling: how the codes of each level are written; None for "<a_{}>", "<b_{}>",
        ... (`items.spelling`).
      rows: "valid" and "test" -> the rows of that split, where its users are asked once
        per row; `valid` and `test` then hold the targets of each user's rows. Empty if
        a user is asked once, about all items of the split.
      titles: of the items that have one.
      names: what the data call each item, such as an ASIN; None for its number.
      level_sizes: as in `ItemIndex`.
    """

    name: str
    codes: np.ndarray
    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    spelling: tuple[str, ...] | None = field(default=None, kw_only=True)
    rows: Mapping[str, Rows] = field(default_factory=dict, kw_only=True)
    titles: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    names: tuple[Name, ...] | None = field(default=None, kw_only=True)
    level_sizes: tuple[int, ...] | None = field(default=None, kw_only=True)

    @property
    def catalog(self) -> Catalog:
        """The catalog of the ids. Raises CatalogError for codes that are no catalog."""
        return Catalog.from_codes(self.codes, self.spelling, self.level_sizes)


def read_atspeed(data_dir, settings: IndexSettings = AS_IT_IS) -> Source:
    """Reads a directory in AtSpeed's layout: `sequential_{train,valid,test}.txt` and
    one `*.json` index.

    A line is `user item item ...`, numbers from 1 on, items in time order; a user may
    have none. The index maps item number (from 0 on) to its codes: {"0": ["<a_47>",
    "<b_103>", ...], ...}. Users keep the order of the train file. The source is named
    after the directory.

    Raises:
      SourceError: a missing or malformed file; it names file, line or entry.
    """
    directory = Path(data_dir)
    if not directory.is_dir():
        raise SourceError(
            f"{directory}: no such data directory; give --data_dir the directory that holds the data. {_LAYOUT}"
        )
    if not any(directory.iterdir()):
        raise SourceError(
            f"{directory}: the data directory is empty; put the data there or give --data_dir another. {_LAYOUT}"
        )
    files = {split: directory / f"sequential_{split}.txt" for split in SPLITS}
    for file in files.values():
        if not file.is_file():
            raise SourceError(f"{file}: no such file; all three splits are needed. {_LAYOUT}")
    indices = sorted(directory.glob("*.json"))
    if len(indices) != 1:
        found = ", ".join(index.name for index in indices) or "none"
        raise SourceError(f"{directory}: the item index must be the only *.json file there, found: {found}. {_LAYOUT}")

    index = read_index(indices[0], settings)
    lines = {split: read_users(file, len(index.codes)) for split, file in files.items()}
    users = list(lines["train"])
    for split in ("valid", "test"):
        if odd := lines[split].keys() ^ lines["train"].keys():
            user = min(odd)
            has, lacks = ("train", split) if user in lines["train"] else (split, "train")
            raise SourceError(
                f"{files[lacks]}: user {user} has no line here but one in {files[has].name}; every user needs a line "
                "in each of the three files (the user number alone if there are no items)."
            )
    by_split = {split: tuple(lines[split][user] for user in users) for split in SPLITS}
    if not any(len(items) for items in by_split["train"]):
        raise SourceError(f"{files['train']}: no interactions at all; training needs at least one.")
    return Source(directory.resolve().name, index.codes, *by_split.values(), spelling=index.spelling)


def synthesize(config: SyntheticConfig) -> Source:
    """Makes the synthetic source. Raises SourceError as `synthetic_world`."""
    return synthetic_world(config)[0]


def synthetic_world(config: SyntheticConfig) -> tuple[Source, np.ndarray]:
    """Makes the synthetic source: simulated events, filtered, split by global time, ids
    by residual k-means.

    Returns:
      (the source, the vectors [items, dimensions] that its ids were made of).

    Raises:
      SourceError: the filters or the split leave nothing to train or to test on.
    """
    events, vectors = simulate(config)
    events = k_core(keep_rated(events, config.min_rating), config.core)
    events, old_users, old_items = renumber(events)
    parts = split_by_time(events, config.valid_share, config.test_share)
    if not all(len(part) for part in parts):
        raise SourceError(
            f"synthetic source: train, valid and test are left with {[len(part) for part in parts]} events; raise "
            f"users or events, or lower core ({config.core}) or min_rating ({config.min_rating})."
        )
    vectors = vectors[old_items]
    codes = residual_kmeans(
        vectors,
        levels=config.levels,
        codes=config.codes_per_level,
        iterations=config.kmeans_iterations,
        seed=config.seed,
    )
    return Source("synthetic", codes, *(sequences(part, len(old_users)) for part in parts)), vectors


def read_users(file: Path, items: int) -> dict[int, np.ndarray]:
    """Reads lines `user item item ...` with numbers from 1 on.

    Args:
      file: of the lines; a user may have none.
      items: number of items that the index has.

    Returns:
      user -> items from 0 on, in the order of the file.

    Raises:
      SourceError: a malformed line; it names file and line.
    """
    users: dict[int, np.ndarray] = {}
    lines: dict[int, int] = {}
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        for number, line in enumerate(text, start=1):
            fields = line.split()
            if not fields:
                continue
            for field in fields:
                if not _NUMBER.fullmatch(field):
                    raise SourceError(
                        f"{file}, line {number}: {field!r} is not a number; expected `user item item ...`, "
                        "all whole numbers from 1 on."
                    )
            user, *sequence = map(int, fields)
            if user < 1:
                raise SourceError(
                    f"{file}, line {number}: user 0, but numbers start at 1; if this file counts from 0, "
                    "add 1 to all of it."
                )
            if user in users:
                raise SourceError(
                    f"{file}, line {number}: user {user} again, first on line {lines[user]}; join the two "
                    "lines in time order."
                )
            for item in sequence:
                if not 1 <= item <= items:
                    remedy = (
                        "Correct the line or add the item to the index."
                        if item
                        else "Correct the line; if this file counts items from 0, add 1 to all of them."
                    )
                    raise SourceError(
                        f"{file}, line {number}: item {item} is unknown; the index has {items} items, written "
                        f"1..{items} in this file (index entry + 1). {remedy}"
                    )
            users[user] = np.array(sequence, np.int32) - np.int32(1)
            lines[user] = number
    return users
