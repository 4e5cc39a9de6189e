"""A Hugging Face model that knows the codes of items, ready to recommend.

Nothing is trained. The model comes as a directory of transformers, the ids of the items
as an index file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import jax

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.prompts import shared_head
from atspeed_jax.decoding.base import ScoreNorm
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.index_file import read_index, read_index_with_gaps
from atspeed_jax.items.index_formats import in_words_of
from atspeed_jax.items.item_index import ItemIndex
from atspeed_jax.items.names import ItemNames
from atspeed_jax.items.placement import check_known
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.pretrained import Pretrained, PretrainedConfig, open_pretrained
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.catalogs import catalog_for, check_positions
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.recommend import Lists, lists_of
from atspeed_jax.serving.settings import DecodeConfig, Setting

ServedDtype = Literal["float32", "bfloat16"]
WIDTH = 64  # beams that a draft proposes for a level, at least; 2K if that is more


@dataclasses.dataclass(frozen=True)
class ModelDirectory:
    """What is served, and how.

    Attributes:
      model: directory of the target, as transformers saves it.
      index: file of the items' ids (`items.index_file`).
      draft: directory of a smaller model of the same tokenizer that proposes beams; None
        for plain beam search. The lists are the same.
      prompt: what the models read of a user.
      history: newest items of a user that a prompt holds.
      dtype: of activations, cache and weights.
      norm: "vocab", log-probabilities over the whole vocabulary as `generate` has them;
        or "trie", over the codes that continue an id.
      bos: the first token of every prompt; None for what the tokenizer adds, if
        anything.
    """

    model: Path
    index: Path
    draft: Path | None = None
    prompt: PromptConfig = PromptConfig()
    history: int = 20
    dtype: ServedDtype = "float32"
    norm: ScoreNorm = "vocab"
    bos: int | None = None

    def __post_init__(self):
        for name, kind in (("dtype", ServedDtype), ("norm", ScoreNorm)):
            if getattr(self, name) not in get_args(kind):
                words = ", ".join(map(repr, get_args(kind)))
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {words}")
        if not isinstance(self.prompt, PromptConfig):
            raise ValueError(
                f"prompt={self.prompt!r}: expected a PromptConfig, or the name of a preset such as 'lcrec'"
            )


class ServedModel:
    """An opened `ModelDirectory`.

    Attributes:
      directory: what was opened.
      items: the items of the index, and no users.
    """

    def __init__(self, directory: ModelDirectory):
        """Checks everything and loads no weights.

        Raises:
          SourceError: the index cannot be read.
          HFConfigError, WeightsError: a directory holds no model that is supported.
          TokenizerError, PromptError: the tokenizer does not know the codes, or does not
            make the text.
          ValueError: the models do not read the same tokens, or a prompt is longer than
            they were made for.
        """
        self.directory = directory
        index = in_words_of(read_index(directory.index), directory.index, directory.model)
        catalog = index.catalog
        self._target, self._draft = self._opened(directory.model), self._opened(directory.draft)
        models = [one for one in (self._target, self._draft) if one is not None]
        catalog = catalog_for(models, catalog, directory.prompt)
        for one in models:
            check_known(catalog, Path(one.config.directory))
        check_positions(models, catalog, directory.history)
        names = ItemNames(catalog.items, index.names, numbers_too=True)
        self.items = Assortment(Dataset(directory.index.name, catalog, (), (), ()), names, index.titles)

    def _opened(self, directory: Path | None) -> Any:
        if directory is None:
            return None
        config = PretrainedConfig(str(directory), None, dtype=self.directory.dtype, bos=self.directory.bos)
        return open_pretrained(config)

    @property
    def catalog(self) -> Catalog:
        """The items and their ids."""
        return self.items.catalog

    def read_index(self, file: Path) -> ItemIndex:
        """Reads the index of another catalog of this model. Its items may have gaps.

        Raises:
          SourceError: the index cannot be read, or names a token that the tokenizer does
            not have.
        """
        return in_words_of(read_index_with_gaps(file), file, self.directory.model)

    @property
    def fingerprint(self) -> tuple:
        """What decides the lists, users and K apart."""
        models = tuple(None if one is None else one.fingerprint for one in (self._target, self._draft))
        d = self.directory
        return (*models, self.items.dataset.fingerprint, d.prompt, d.history, d.norm)

    @functools.cached_property
    def decoders(self) -> Decoders:
        """The models and the catalog, loaded when first asked for."""
        catalog, (target, target_params) = self.catalog, self._loaded(self._target)
        draft, draft_params = (None, None) if self._draft is None else self._loaded(self._draft)
        decoders = Decoders(
            target=target,
            target_params=target_params,
            draft=draft,
            draft_params=draft_params,
            trie=jax.device_put(build_trie(catalog.id_tokens)),
            prior=(),
            prefixes=prefixes_by_norm(catalog.id_tokens),
            first_code=catalog.first_code,
        )
        return decoders.unrolled().with_head(shared_head(catalog))

    def _loaded(self, model: Pretrained):
        """The config and the parameters of a model, its tokens as in the catalog."""
        placed = model.numbered(self.catalog.vocabulary)
        return placed.model, placed.load(dtype=self.directory.dtype)

    def setting(self, k: int) -> Setting:
        """How lists of k items are decoded."""
        if self._draft is None:
            return Setting.beam_search(k, self.directory.norm)
        widths = (max(WIDTH, 2 * k),) * (self.catalog.length - 1)
        return Setting.strict("draft", k, DecodeConfig(widths, self.catalog.length - 1, self.directory.norm))

    def lists(
        self,
        k: int,
        *,
        exclude_seen: bool = False,
        batch_size: int = 8,
        say: Callable[[str], None] = lambda text: None,
        items: Assortment | None = None,
    ) -> Lists:
        """Makes the function from users to their lists: see `lists_of`.

        Args:
          k: items per list, and beams of the search.
          exclude_seen: whether the items of a history are left out of its list.
          batch_size: users decoded at once.
          say: gets a line where widths too small for K are raised.
          items: that are listed; None for those of the index.
        """
        items = items or self.items
        decoders, setting = items.decoders(self.decoders, self.decoders.fitted(self.setting(k), say), say)
        shape = BatchShape(self.directory.history, _buckets(self.directory.history), batch_size)
        return lists_of(decoders, setting, items.dataset, shape, exclude_seen=exclude_seen)


def _buckets(history: int) -> tuple[int, ...]:
    """Lengths in items that prompts are padded to: a quarter, a half and all."""
    return tuple(sorted({max(1, math.ceil(history / part)) for part in (4, 2, 1)}))
