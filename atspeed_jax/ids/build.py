"""Makes the ids of a data directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atspeed_jax.ids.collisions import check_room, resolve
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.model import CODEBOOKS_FILE, IdsModel, read_model
from atspeed_jax.ids.residual import residual_kmeans
from atspeed_jax.ids.rqvae import train_rqvae
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.ids.tables import Interactions, ItemTable, index_bytes, read_interactions, read_items
from atspeed_jax.ids.vectors import check_kind, make_vectors
from atspeed_jax.items.data_directory import INDEX, INTERACTIONS, ITEMS
from atspeed_jax.utils.files import locked, write_together

Say = Callable[[str], None]

_LOCK = ".ids.lock"  # in the data directory, while ids are made


@dataclass(frozen=True, eq=False)
class Built:
    """Ids of a catalog, not yet written.

    Attributes:
      model: that gave them.
      items: of the catalog.
      log: its interactions.
      vectors: [items, D] float32.
      nearest: [items, L] int32, codes before collisions were resolved.
      codes: [items, L] int32, collisions resolved; L + 1 with a further code.
    """

    model: IdsModel
    items: ItemTable
    log: Interactions
    vectors: np.ndarray
    nearest: np.ndarray
    codes: np.ndarray


@contextlib.contextmanager
def new_ids(directory: Path, config: IdsConfig, overwrite: bool) -> Iterator[None]:
    """Holds a data directory that gets ids, while the block runs.

    Codebooks of the same settings without an index are those of a build that was
    killed: they are made again.

    Raises:
      IdsError: ids that are not to be overwritten, another process that makes ids here,
        or a directory that cannot be written.
    """
    if not directory.is_dir():
        raise IdsError(f"{directory}: no such directory; give one with {ITEMS} and {INTERACTIONS}")
    with contextlib.ExitStack() as stack:
        try:
            is_first = stack.enter_context(locked(directory / _LOCK))
        except OSError as error:
            raise IdsError(
                f"{directory} cannot be written ({error}); ids are stored there: make it writable"
            ) from error
        if not is_first:
            raise IdsError(f"another process makes ids in {directory}; wait for it")
        if not overwrite:
            _check_new(directory, config)
        yield


def _check_new(directory: Path, config: IdsConfig) -> None:
    """Raises IdsError for ids that would be overwritten."""
    index, codebooks = directory / INDEX, directory / CODEBOOKS_FILE
    if index.exists():
        raise IdsError(
            f"{directory} has {INDEX} already, and runs may use these ids; pass --overwrite to make new ones"
        )
    if codebooks.exists() and read_model(codebooks).config != config:
        raise IdsError(
            f"{directory} has {CODEBOOKS_FILE} of other settings and no {INDEX}; pass --overwrite to make new ids, or "
            "move that file away"
        )


def build(directory: Path, config: IdsConfig, items: ItemTable, say: Say) -> Built:
    """Makes the ids of all items.

    Args:
      directory: with interactions.parquet.
      config: of the ids.
      items: of the catalog (`tables.read_items`).
      say: takes a line per step.

    Raises:
      IdsError: data or settings that ids cannot be made of.
    """
    check_kind(config.vectors)
    if config.collisions != "keep":
        check_room(len(items), (config.codes,) * config.levels + (len(items),) * (config.collisions == "further"))
    log = read_interactions(directory / INTERACTIONS, len(items))
    vectors, space = make_vectors(config, items, log, say)
    sizes, autoencoder = (config.codes,) * config.levels, None
    if config.method == "rqvae":
        autoencoder, codebooks, nearest = train_rqvae(vectors, sizes, seed=config.seed, say=say)
    else:
        balanced = config.method == "balanced"
        codebooks, nearest = residual_kmeans(vectors, sizes, seed=config.seed, balanced=balanced, say=say)
    model = IdsModel(config, space, codebooks, autoencoder)
    codes = resolve(nearest, model.latents(vectors), codebooks, config.collisions)
    return Built(model, items, log, vectors, nearest, codes)


def write(directory: Path, built: Built, beside: Mapping[str, str]) -> None:
    """Writes codebooks, index and texts, each whole or not at all, the index last.

    Args:
      directory: of the data.
      built: the ids.
      beside: name -> text of a further file.
    """
    codebooks, sizes = built.model.to_bytes(), built.model.level_sizes(built.codes)
    index = index_bytes(range(len(built.items)), built.items, built.codes, sizes, codebooks)
    texts = {directory / name: text.encode("utf-8") for name, text in beside.items()}
    write_together(texts | {directory / CODEBOOKS_FILE: codebooks, directory / INDEX: index})


def read_catalog(directory: Path) -> ItemTable:
    """Reads the items of a data directory (`tables.read_items`)."""
    return read_items(directory / ITEMS)
