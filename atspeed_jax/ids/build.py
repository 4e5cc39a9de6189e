"""Makes the ids of a data directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atspeed_jax.ids.collisions import check_room, resolve
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.model import CODEBOOKS_FILE, IdsModel
from atspeed_jax.ids.residual import residual_kmeans
from atspeed_jax.ids.rqvae import train_rqvae
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.ids.tables import Interactions, ItemTable, index_bytes, read_interactions, read_items
from atspeed_jax.ids.vectors import check_kind, make_vectors
from atspeed_jax.items.data_directory import INDEX, INTERACTIONS, ITEMS
from atspeed_jax.utils.files import write_bytes

Say = Callable[[str], None]


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


def check_new(directory: Path, overwrite: bool) -> None:
    """Checks that a data directory has no ids yet.

    Raises:
      IdsError: no such directory, or ids that are not to be overwritten.
    """
    if not directory.is_dir():
        raise IdsError(f"{directory}: no such directory; give one with {ITEMS} and {INTERACTIONS}")
    there = [name for name in (INDEX, CODEBOOKS_FILE) if (directory / name).exists()]
    if there and not overwrite:
        raise IdsError(
            f"{directory} has {' and '.join(there)} already, and runs may use these ids; pass --overwrite to make new "
            "ones"
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


def write(directory: Path, built: Built) -> None:
    """Writes index and codebooks, each whole or not at all, the index last."""
    write_bytes(directory / CODEBOOKS_FILE, built.model.to_bytes())
    sizes = built.model.level_sizes(built.codes)
    write_bytes(directory / INDEX, index_bytes(range(len(built.items)), built.items, built.codes, sizes))


def read_catalog(directory: Path) -> ItemTable:
    """Reads the items of a data directory (`tables.read_items`)."""
    return read_items(directory / ITEMS)
