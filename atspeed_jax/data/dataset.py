"""The stored dataset: array_record files and the catalog.

    directory/catalog.json                        name, fingerprint, level sizes, ids,
                                                  spelling unless it is the default
    directory/interactions/, held_out_rows/       array_record files (`data.records`)

A directory is complete or absent: it is written beside its final name, under a
temporary one, and renamed at the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from atspeed_jax.data.records import (
    ROW_SPLITS,
    VERSION,
    Interactions,
    needed_files,
    read_interactions,
    read_rows,
    write_records,
)
from atspeed_jax.data.rows import Rows
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.utils.building import built

CATALOG_FILE = "catalog.json"
_REMEDY = (
    "Build it in the checkout with `python -m launch.prepare_data --config=configs/NAME.py --workdir=DIR "
    "[--data_dir=DIR]`."
)


class DatasetError(ValueError):
    """A stored dataset that is missing, incomplete or damaged, or that is not to be
    overwritten.
    """


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory.

    Attributes:
      name: of the source it was made from.
      catalog: the ids of the items.
      train, valid, test: per user (same order in all three) an int32 array of items in
        time order; may be empty.
      rows: "valid" and "test" -> the rows of that split, if users are asked once per row;
        `valid` and `test` then hold the targets of each user's rows.
    """

    name: str
    catalog: Catalog
    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    rows: Mapping[str, Rows] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Source) -> Dataset:
        """The dataset that `build_dataset` stores of `source`.

        Raises:
          DatasetError: splits of different users, an interaction with an unknown item,
            or rows that are not those of valid and test.
          CatalogError: the ids of the source are no catalog.
        """
        catalog = source.catalog
        _check_interactions(source, catalog.items)
        return cls(source.name, catalog, source.train, source.valid, source.test, source.rows)

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.train)

    @cached_property
    def popularity(self) -> np.ndarray:
        """[items] int64: interactions of each item in train, never in valid or test."""
        counts = np.bincount(np.concatenate((*self.train, np.zeros(0, np.int32))), minlength=self.catalog.items)
        counts.setflags(write=False)
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any id, its spelling or any
        interaction, not with the name.
        """
        digest = hashlib.sha256(repr((self.catalog.codes.shape, self.catalog.level_sizes)).encode())
        digest.update(self.catalog.codes.astype("<i4").tobytes())
        if self.catalog.spelling is not None:
            digest.update(repr(self.catalog.spelling).encode())
        for split in SPLITS:
            rows = getattr(self, split)
            digest.update(np.array([len(row) for row in rows], "<i8").tobytes())
            digest.update(_joined(rows))
        for split, held_out in sorted(self.rows.items()):
            digest.update(split.encode() + held_out.users.astype("<i8").tobytes())
            digest.update(held_out.targets.astype("<i4").tobytes())
            digest.update(np.array([len(history) for history in held_out.histories], "<i8").tobytes())
            digest.update(_joined(held_out.histories))
        return digest.hexdigest()[:16]

    def history(self, user: int, split: str) -> np.ndarray:
        """The items that are known of a user before a split.

        Args:
          user: number of the user.
          split: "valid" gives the train items, "test" the train, then the valid items.
            Where users are asked once per row, each row has its history.

        Returns:
          [n] int32, in time order.
        """
        if split == "valid":
            return self.train[user]
        if split == "test":
            return np.concatenate((self.train[user], self.valid[user]))
        raise ValueError(f'split is {split!r}; a history is asked for "valid" or "test".')


def build_dataset(source: Source, directory) -> None:
    """Stores a source. Needs no TensorFlow.

    A build that fails or is killed leaves `directory` as it was; the next build removes
    the files of a killed one.

    Args:
      source: what is stored.
      directory: must not exist yet, or be empty.

    Raises:
      DatasetError: `directory` is not empty or cannot be written, or as `Dataset.of`.
      CatalogError: as `Dataset.of`.
    """
    directory = Path(directory).absolute()
    stored = Dataset.of(source)
    try:
        with built(directory) as building:
            write_records(source, building)
            entries = {
                "name": source.name,
                "fingerprint": stored.fingerprint,
                "level_sizes": stored.catalog.level_sizes,
                "codes": stored.catalog.codes.tolist(),
            }
            if stored.catalog.spelling is not None:
                entries["spelling"] = stored.catalog.spelling
            if stored.rows:
                entries["rows"] = True
            (building / CATALOG_FILE).write_text(json.dumps(entries, separators=(",", ":")) + "\n", encoding="utf-8")
    except FileExistsError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise DatasetError(f"{directory}: cannot be written ({error}); give a directory you may write to.") from error


def load_dataset(directory) -> Dataset:
    """Reads what `build_dataset` stored.

    Raises:
      DatasetError: missing, incomplete or damaged; the message names the file and the
        command to run.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DatasetError(f"{directory}: no such dataset directory. {_REMEDY}")
    file = directory / CATALOG_FILE
    records = directory / Interactions.name / VERSION
    _check_complete(directory, [file, *needed_files(directory, rows=False)])
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        name, fingerprint = str(entries["name"]), entries["fingerprint"]
        catalog = Catalog(np.array(entries["codes"]), tuple(entries["level_sizes"]), spelling=entries.get("spelling"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # CatalogError is a ValueError
        raise DatasetError(f"{file}: damaged ({error}); remove {directory} and build it again. {_REMEDY}") from error
    _check_complete(directory, needed_files(directory, rows=bool(entries.get("rows"))))
    try:
        rows = read_rows(directory) if entries.get("rows") else {}
        dataset = Dataset(name, catalog, *read_interactions(directory), rows=rows)
        if dataset.fingerprint != fingerprint:  # a truncated file can be read, as fewer or empty rows
            raise ValueError(f"content {dataset.fingerprint} differs from the {fingerprint} that {file.name} names")
    except (ImportError, MemoryError):  # the files are not at fault
        raise
    except Exception as error:  # whatever TFDS or array_record make of damaged files
        raise DatasetError(
            f"{records}: cannot be read ({error}); remove {directory} and build it again. {_REMEDY}"
        ) from error
    return dataset


def _check_complete(directory: Path, needed: list[Path]) -> None:
    """Raises DatasetError for a file that is missing."""
    for file in needed:
        if not file.is_file():
            raise DatasetError(
                f"{file}: missing, so the dataset is incomplete; remove {directory} and build it again. {_REMEDY}"
            )


def _check_interactions(source: Source, items: int) -> None:
    """Raises DatasetError for splits of different users, or an unknown item."""
    users = {split: len(getattr(source, split)) for split in SPLITS}
    if len(set(users.values())) != 1:
        raise DatasetError(f"source {source.name!r} has {users} users; every split needs an entry for every user.")
    for split in SPLITS:
        for user, sequence in enumerate(getattr(source, split)):
            if len(sequence) and not 0 <= sequence.min() <= sequence.max() < items:
                raise DatasetError(
                    f"source {source.name!r}, {split}, user {user}: an item outside 0..{items - 1}; "
                    f"the catalog has {items} items."
                )
    if source.rows:
        _check_rows(source, items)


def _check_rows(source: Source, items: int) -> None:
    """Raises DatasetError for rows that are not those of valid and test."""
    if set(source.rows) != set(ROW_SPLITS):
        raise DatasetError(f"source {source.name!r} has rows of {sorted(source.rows)}; expected {list(ROW_SPLITS)}.")
    for split, rows in source.rows.items():
        histories = np.concatenate((*rows.histories, np.zeros(0, np.int32)))
        if len(histories) and not 0 <= histories.min() <= histories.max() < items:
            raise DatasetError(
                f"source {source.name!r}: a {split} row has a history with an item outside 0..{items - 1}."
            )
        if _joined(rows.targets_by_user(len(source.train))) != _joined(getattr(source, split)):
            raise DatasetError(f"source {source.name!r}: the {split} items are not the targets of the {split} rows.")


def _joined(sequences: tuple[np.ndarray, ...]) -> bytes:
    """The items of all sequences, one behind the other."""
    return np.concatenate((*sequences, np.zeros(0, np.int32))).astype("<i4").tobytes()
