"""What a model is served with: the items, what they are called, and which are listed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.grown_catalog import ListedCatalog, counts_of_ids, grow, listed_items, listing
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.names import ItemNames
from atspeed_jax.items.trie import TrieError, build_trie, popularity_prior
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import Setting
from atspeed_jax.utils.distributed import place


@dataclasses.dataclass(frozen=True, eq=False)
class Assortment:
    """The items that a model is served with.

    Attributes:
      dataset: its catalog has the items. A new item has no interaction.
      names: what files and lists call the items.
      titles: of the items that have one, by number.
    """

    dataset: Dataset
    names: ItemNames
    titles: Mapping[int, str]

    @property
    def catalog(self) -> Catalog:
        """The items, their ids, and which items are listed."""
        return self.dataset.catalog

    @property
    def available(self) -> int:
        """Number of items that are listed."""
        return int(listed_items(self.catalog).sum())

    @property
    def changes(self) -> tuple[str, ...]:
        """A fingerprint of what differs from the trained catalog; empty for that
        catalog.
        """
        if not isinstance(self.catalog, ListedCatalog):
            return ()
        digest = hashlib.sha256(self.catalog.codes.astype("<i4").tobytes() + self.catalog.listed.tobytes())
        return (digest.hexdigest()[:16],)

    def grown(self, index: ItemIndex, file: Path, say: Callable[[str], None] = lambda text: None) -> Assortment:
        """Lists the items of an index in the place of those of the trained catalog.

        Args:
          index: read of `file`; see `items.grown_catalog.grow`.
          file: of the index, for messages.
          say: gets a line that counts known, new and removed items.

        Raises:
          CatalogError: as `grow`.
        """
        found = grow(self.catalog, self.names, self.titles, index, file)
        say(f"{file}: {found}")
        return Assortment(dataclasses.replace(self.dataset, catalog=found.catalog), found.names, found.titles)

    def only(self, allow: np.ndarray | None, exclude: np.ndarray) -> Assortment:
        """Lists no other items than some.

        Args:
          allow: numbers of items that may be listed; None for all.
          exclude: numbers of items that may not.

        Raises:
          CatalogError: no item is left.
        """
        if allow is None and not len(exclude):
            return self
        listed = listed_items(self.catalog).copy()
        listed[exclude] = False
        if allow is not None:
            listed[np.setdiff1d(np.arange(len(listed)), allow)] = False
        catalog = listing(self.catalog, listed)
        return dataclasses.replace(self, dataset=dataclasses.replace(self.dataset, catalog=catalog))

    def decoders(self, decoders: Decoders, setting: Setting, say: Callable[[str], None]) -> tuple[Decoders, Setting]:
        """Puts the trie of these items in the place of that of the trained catalog.

        Nothing is compiled again as long as the ids fit the capacities of the trie: its
        arrays have the same shapes then, and widths of "all" stay those of the trained
        catalog, which changes no list.

        Args:
          decoders: of the trained catalog.
          setting: how lists are decoded, fitted to the trained catalog.
          say: gets a line if programs are compiled again, with the reason.

        Returns:
          The decoders and the setting for these items.
        """
        if not self.changes:
            return decoders, setting
        id_tokens, why = self.catalog.id_tokens, []
        try:
            trie = build_trie(id_tokens, decoders.trie.capacity)
        except TrieError as error:
            trie = build_trie(id_tokens)
            why.append(str(error).partition(":")[0])
        counts = counts_of_ids(self.catalog, self.dataset.popularity)
        prior = popularity_prior(trie, id_tokens, counts) if decoders.prior else ()
        like = decoders.trie.token[0]
        changed = dataclasses.replace(decoders, trie=_placed(trie, like), prior=_placed(prior, like))
        prefixes = prefixes_by_norm(id_tokens)
        if not _holds(setting, decoders, prefixes):
            why.append(f"K={setting.search.beams} needs wider levels")
        if why:
            say(f"the decoder is compiled again for this catalog: {'; '.join(why)}")
            changed = dataclasses.replace(changed, prefixes=prefixes)
            setting = changed.fitted(setting, say)
        return changed, setting


def _holds(setting: Setting, decoders: Decoders, prefixes: Mapping) -> bool:
    """Whether the widths for the trained catalog hold the K beams in one of other
    `prefixes`.
    """
    if setting.method == "beam_search":
        return True
    search = setting.search
    have, trained = prefixes[search.score_norm], decoders.prefixes[search.score_norm]
    widths = search.resolve(trained).resolved_widths(len(trained))
    return all(width >= min(search.beams, nodes) for width, nodes in zip(widths, have, strict=False))


def _placed(tree, like):
    """Arrays on the devices as `like` lies there: programs are compiled per placement."""
    committed = isinstance(like, jax.Array) and like.committed
    return place(tree, like.sharding) if committed else jax.device_put(tree)
