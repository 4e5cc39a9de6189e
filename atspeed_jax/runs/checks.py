"""What can be known to fail before any long work: data that is not what the run describes, settings that do not fit it.

All functions return None or raise a ValueError that names the field or directory and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from jax.sharding import Mesh

from atspeed_jax.data.dataset import Dataset, DatasetError
from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.data.sources import SPLITS, Source
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.config import Widths, prefixes_by_norm, resolve_widths
from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.runs.experiment import ExperimentConfig, ServeConfig
from atspeed_jax.training.sharding import check_batch, check_model


def check_same_data(stored: Dataset, directory: Path, source: Source, origin: str) -> None:
    """Raises DatasetError unless `stored`, of `directory`, has the interactions and item codes of `source`.

    origin: where the source comes from, for the message.
    """
    if Dataset.of(source).fingerprint != stored.fingerprint:
        raise DatasetError(
            f"{directory} was built from other interactions or item codes than {origin} gives: use another --workdir"
        )


def check_splits(dataset: Dataset) -> None:
    """Raises DatasetError if nobody has items in one of the splits: training, choosing or measuring needs them all."""
    for split in SPLITS:
        if not any(len(items) for items in getattr(dataset, split)):
            raise DatasetError(
                f"dataset {dataset.name!r}: nobody has {split} items; train, valid and test each need some"
            )


def check_settings(config: ExperimentConfig, dataset: Dataset) -> None:
    """Of a run to be trained: raises DecodeError for widths or a budget that cannot hold the beams."""
    prefixes = prefixes_by_norm(dataset.catalog.id_tokens)[config.decode.score_norm]
    measured = (*config.evaluate.beams, *config.evaluate.grid_beams)
    _check_widths("config.decode.widths", config.decode.widths, prefixes, (config.teacher.beams, *measured))
    budget, most = config.decode.budget, max(config.teacher.beams, *measured)
    if budget is not None and budget < most:
        raise DecodeError(f"config.decode.budget={budget}: expected at least the largest K decoded, {most}, or None")
    for number, widths in enumerate(config.evaluate.grid_widths):
        _check_widths(f"config.evaluate.grid_widths[{number}]", widths, prefixes, measured)


def check_serving(serve: ServeConfig, dataset: Dataset) -> None:
    """The same of a trained run, where widths and budget too small for K are raised (`Decoders.fitted`)."""
    prefixes = prefixes_by_norm(dataset.catalog.id_tokens)[serve.decode.score_norm]
    _check_widths("config.decode.widths", serve.decode.widths, prefixes, (1,))
    for number, widths in enumerate(serve.evaluate.grid_widths):
        _check_widths(f"config.evaluate.grid_widths[{number}]", widths, prefixes, (1,))


def _check_widths(name: str, widths, prefixes: tuple[int, ...], counts: tuple[int, ...]) -> None:
    for beams in counts:
        try:
            resolve_widths(widths, prefixes, beams)
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error


def check_modes(measures: Iterable[ModesConfig], dataset: Dataset) -> None:
    """Of what is measured after training: raises DecodeError for another number of widths than ids have levels to
    draft."""
    for number, measure in enumerate(measures):
        check_grid(f"config.measure[{number}].widths", measure.widths, dataset)


def check_grid(name: str, grid: Iterable[Widths], dataset: Dataset) -> None:
    """The same of widths that the field or flag `name` gave."""
    prefixes = prefixes_by_norm(dataset.catalog.id_tokens)["vocab"]
    for widths in grid:
        _check_widths(name, widths, prefixes, (1,))


def check_positions(pretrained: Iterable[Pretrained], catalog: Catalog, history: int) -> None:
    """Raises ValueError if a prompt of `history` items and its answer are longer than a model was made for."""
    longest = prompt_width(catalog, history) + catalog.length
    text = "shorten prompt.template or prompt.separator, or " if catalog.instruction else ""
    for one in pretrained:
        if one.positions is not None and longest > one.positions:
            raise ValueError(
                f"config.data: a prompt of history={history} items and the next one has {longest} tokens, but "
                f"{one.config.directory} was made for {one.positions} (max_position_embeddings): {text}lower history"
            )


def check_same_vocabulary(pretrained: Iterable[Pretrained]) -> None:
    """Raises ValueError unless all pretrained models have one vocabulary: draft and target read the same tokens."""
    sizes = {one.config.directory: (one.model.vocab_size, one.bos) for one in pretrained}
    if len(set(sizes.values())) > 1:
        told = "; ".join(f"{name} has {size} tokens and BOS {bos}" for name, (size, bos) in sizes.items())
        raise ValueError(f"draft and target must share one vocabulary, but {told}: take models of one tokenizer")


def check_mesh(models: Mapping[str, LlamaConfig], mesh: Mesh) -> None:
    """Raises ShardingError for a model ("target", "draft") that cannot be split evenly over the mesh."""
    for name, model in models.items():
        check_model(mesh, model, f"config.{name}")


def check_batches(config: ExperimentConfig, mesh: Mesh) -> None:
    """Raises ShardingError for a batch of training that cannot be split evenly over the mesh."""
    for name in ("train_target", "train_draft", "train_align", "teacher"):
        check_batch(mesh, getattr(config, name).batch_size, f"config.{name}.batch_size")
    for name in ("train_target", "train_draft", "train_align"):
        train = getattr(config, name)
        check_batch(mesh, train.batch_size // train.accumulate, f"config.{name}.batch_size / accumulate")
