"""Checks of data and settings before any long work.

Every function returns None, or raises a ValueError that names the field or the
directory and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from jax.sharding import Mesh

from atspeed_jax.data.dataset import Dataset, DatasetError
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.config import Widths, prefixes_by_norm, resolve_widths
from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.runs.experiment import ExperimentConfig, ServeConfig
from atspeed_jax.training.sharding import check_batch, check_model


def check_same_data(stored: Dataset, directory: Path, source: Source, origin: str) -> None:
    """Checks that a stored dataset has the interactions and item codes of a source.

    Args:
      stored: the dataset in `directory`.
      origin: where the source comes from, for the message.

    Raises:
      DatasetError: they differ.
    """
    if Dataset.of(source).fingerprint != stored.fingerprint:
        raise DatasetError(
            f"{directory} was built from other interactions or item codes than {origin} gives: use another --workdir"
        )


def check_splits(dataset: Dataset) -> None:
    """Checks that every split has items: training, validation and test each need some.

    Raises:
      DatasetError: no user has items in one of the splits.
    """
    for split in SPLITS:
        if not any(len(items) for items in getattr(dataset, split)):
            raise DatasetError(
                f"dataset {dataset.name!r}: nobody has {split} items; train, valid and test each need some"
            )


def check_settings(config: ExperimentConfig, dataset: Dataset) -> None:
    """Checks the decoding settings of a run that is to be trained.

    Raises:
      DecodeError: widths or budget cannot hold the beams that are decoded or measured.
    """
    prefixes = prefixes_by_norm(dataset.catalog.id_tokens)[config.decode.score_norm]
    evaluate = config.evaluate
    measured = {"config.evaluate.beams": evaluate.beams, "config.evaluate.grid_beams": evaluate.grid_beams}
    decoded = {"config.teacher.beams": (config.teacher.beams,)} | measured
    _check_widths("config.decode.widths", config.decode.widths, prefixes, decoded)
    budget, most = config.decode.budget, max(k for counts in decoded.values() for k in counts)
    if budget is not None and budget < most:
        raise DecodeError(f"config.decode.budget={budget}: expected at least the largest K decoded, {most}, or None")
    for beams in evaluate.tune:
        if beams > len(dataset.catalog.id_tokens):
            raise DecodeError(
                f"config.evaluate.tune holds K={beams}: expected at most {len(dataset.catalog.id_tokens)}, the ids of "
                "the catalog"
            )
    for number, widths in enumerate(config.evaluate.grid_widths):
        _check_widths(f"config.evaluate.grid_widths[{number}]", widths, prefixes, measured)


def check_serving(serve: ServeConfig, dataset: Dataset) -> None:
    """Checks the decoding settings of a trained run.

    Widths and a budget that are too small for K are no error: they are raised when the
    run is served (`Decoders.fitted`).

    Raises:
      DecodeError: the number of widths is not the number of levels that are drafted.
    """
    prefixes = prefixes_by_norm(dataset.catalog.id_tokens)[serve.decode.score_norm]
    _check_widths("config.decode.widths", serve.decode.widths, prefixes, ANY_K)
    for number, widths in enumerate(serve.evaluate.grid_widths):
        _check_widths(f"config.evaluate.grid_widths[{number}]", widths, prefixes, ANY_K)


ANY_K: Mapping[str, tuple[int, ...]] = {"K": (1,)}  # for `_check_widths`, where small widths are raised to K later


def _check_widths(name: str, widths: Widths, prefixes: tuple[int, ...], counts: Mapping[str, tuple[int, ...]]) -> None:
    """Raises DecodeError unless the widths of the field or flag `name` hold every K.

    Args:
      counts: field that gives K -> its values.
    """
    for field, beams in ((field, beams) for field, values in counts.items() for beams in values):
        try:
            resolve_widths(widths, prefixes, beams, remedy=f"raise it in {name}, or lower {field}")
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error


def check_modes(measures: Iterable[ModesConfig], dataset: Dataset) -> None:
    """Checks the widths of the measurements that follow a training.

    Raises:
      DecodeError: the number of widths is not the number of levels that are drafted.
    """
    for number, measure in enumerate(measures):
        check_grid(f"config.measure[{number}].widths", measure.widths, dataset)


def check_grid(name: str, grid: Iterable[Widths], dataset: Dataset) -> None:
    """Checks each of several widths.

    Args:
      name: the field or flag that gave the widths.

    Raises:
      DecodeError: the number of widths is not the number of levels that are drafted.
    """
    prefixes = prefixes_by_norm(dataset.catalog.id_tokens)["vocab"]
    for widths in grid:
        _check_widths(name, widths, prefixes, ANY_K)


def check_mesh(models: Mapping[str, LlamaConfig], mesh: Mesh) -> None:
    """Checks that models can be split evenly over the mesh.

    Args:
      models: "target" and "draft" -> sizes.

    Raises:
      ShardingError: a mesh axis does not divide a size.
    """
    for name, model in models.items():
        check_model(mesh, model, f"config.{name}")


def check_batches(config: ExperimentConfig, mesh: Mesh) -> None:
    """Checks that all batches of trainings and teacher can be split over the mesh.

    Raises:
      ShardingError: the mesh does not divide a batch size.
    """
    every = {"train_target": config.train_target, "train_draft": config.train_draft, "train_align": config.train_align}
    trainings = {name: train for name, train in every.items() if train is not None}
    for name, section in {**trainings, "teacher": config.teacher}.items():
        check_batch(mesh, section.batch_size, f"config.{name}.batch_size")
    for name, train in trainings.items():
        check_batch(mesh, train.batch_size // train.accumulate, f"config.{name}.batch_size / accumulate")
