"""The array_record files of a stored dataset, written by TFDS builders.

interactions/1.0.0/*.array_record*     a record per user: train, valid, test
held_out_rows/1.0.0/*.array_record*    a record per row of valid and of test, if any
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from atspeed_jax.data.rows import Rows
from atspeed_jax.data.sources import SPLITS, Source

USERS_SPLIT = "users"
ROW_SPLITS = SPLITS[1:]
VERSION = "1.0.0"


class Interactions(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of a `Source`: one record per user, in the source's order.

    The name of this class names the stored directory.
    """

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing is downloaded, and TFDS's own search for checksums needs a package it does not require

    def __init__(self, *, source: Source, **kwargs):
        self._source = source
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        sequence = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        features = {"user": np.int32} | dict.fromkeys(SPLITS, sequence)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Interactions of {self._source.name}, split by global time.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # users stay in order, so a row number names a user
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is ever downloaded
        return {USERS_SPLIT: self._generate_examples()}

    def _generate_examples(self):
        rows = zip(self._source.train, self._source.valid, self._source.test, strict=True)
        for user, sequences in enumerate(rows):
            yield user, {"user": user, **dict(zip(SPLITS, sequences, strict=True))}


class HeldOutRows(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the rows of a `Source`: one record per row, in their order.

    The name of this class names the stored directory.
    """

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # as above

    def __init__(self, *, source: Source, **kwargs):
        self._source = source
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        history = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Held-out rows of {self._source.name}.",
            features=tfds.features.FeaturesDict(
                {"row": np.int64, "user": np.int64, "history": history, "target": np.int32}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is ever downloaded
        return {split: self._generate_examples(rows) for split, rows in self._source.rows.items()}

    def _generate_examples(self, rows: Rows):
        for row, (user, history, target) in enumerate(zip(rows.users, rows.histories, rows.targets, strict=True)):
            yield row, {"row": row, "user": user, "history": history, "target": target}


def write_records(source: Source, directory: Path) -> None:
    """Writes the records of a source below `directory`."""
    builders = (Interactions, HeldOutRows) if source.rows else (Interactions,)
    for builder in builders:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces the temporary path as the final one
            builder(source=source, data_dir=str(directory), file_format="array_record").download_and_prepare()


def needed_files(directory: Path, *, rows: bool) -> list[Path]:
    """The files without which records below `directory` are incomplete."""
    builders = (Interactions, HeldOutRows) if rows else (Interactions,)
    return [directory / b.name / VERSION / name for b in builders for name in ("dataset_info.json", "features.json")]


def read_interactions(directory: Path) -> tuple[tuple[np.ndarray, ...], ...]:
    """Reads train, valid and test of every user. Raises whatever TFDS raises."""
    rows = _read(directory / Interactions.name / VERSION, USERS_SPLIT, "user")
    return tuple(tuple(row[split] for row in rows) for split in SPLITS)


def read_rows(directory: Path) -> dict[str, Rows]:
    """Reads the rows of valid and test. Raises whatever TFDS raises."""
    found = {split: _read(directory / HeldOutRows.name / VERSION, split, "row") for split in ROW_SPLITS}
    return {
        split: Rows.of((int(row["user"]), row["history"], int(row["target"])) for row in rows)
        for split, rows in found.items()
    }


def _read(records: Path, split: str, key: str) -> list[dict]:
    builder = tfds.builder_from_directory(str(records))
    rows = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue] (a decorator hides split)
    return sorted(rows.__getitems__(range(len(rows))), key=lambda row: row[key])
