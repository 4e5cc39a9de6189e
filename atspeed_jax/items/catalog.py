"""The catalog: items <-> codes <-> tokens, and the items that share an id.

An *item* is an integer 0..items-1. Its *id* is a sequence of L codes, one per level.
Several items may carry the same id (a collision). So a decoder works on distinct ids,
and a list of ids is turned into items afterwards (`expand_ids`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from atspeed_jax.items.spelling import SpellingError, checked_spelling
from atspeed_jax.items.vocabulary import Vocabulary

PAD, BOS, FIRST_CODE = 0, 1, 2
MAX_LENGTH = 8
MAX_CODES = 1 << 16  # per level; a larger number is a typing error, and would ask for an embedding row per code


class CatalogError(ValueError):
    """A catalog that cannot be used, or a code, token or item that it does not have."""


@dataclass(frozen=True)
class Instruction:
    """The text around the items of a prompt, as tokens, none of them PAD.

    A prompt is head, item, separator, item, ..., tail.

    Attributes:
      head: begins with BOS, if the prompts of the model do.
      separator: between two items.
      tail: behind the last item.
      empty: the whole prompt of a user without items.
    """

    head: tuple[int, ...]
    separator: tuple[int, ...]
    tail: tuple[int, ...]
    empty: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Catalog:
    """Ids of all items.

    Attributes:
      codes: [items, L] int32, the id of every item, codes 0..level_sizes[l]-1.
      level_sizes: number of codes at each of the L levels.
      bos: token that begins every prompt. A prompt of no items and no text is this
        token alone.
      first_code: token of code 0 of level 0. The tokens of a pretrained vocabulary are
        below it (`behind`).
      instruction: the text around the items of a prompt; None for items alone behind
        BOS.
      begins: False for a pretrained model whose prompts do not begin with BOS.
      vocabulary: which rows of a pretrained model the tokens are; None if the number of
        a token is that of its row.
      spelling: how the codes of each level are written, such as ("<s_a_{}>",
        "<s_b_{}>"); None for "<a_{}>", "<b_{}>", ... (`items.spelling`).

    Raises:
      CatalogError: no items, L outside 1..8, a code outside its level, or patterns that
        cannot spell the codes.
    """

    codes: np.ndarray
    level_sizes: tuple[int, ...]
    bos: int = BOS
    first_code: int = FIRST_CODE
    instruction: Instruction | None = None
    begins: bool = True
    vocabulary: Vocabulary | None = None
    spelling: tuple[str, ...] | None = None

    def __post_init__(self):
        codes = np.asarray(self.codes)
        _check_codes(codes)
        sizes = tuple(int(size) for size in self.level_sizes)
        if len(sizes) != codes.shape[1]:
            raise CatalogError(
                f"level_sizes has {len(sizes)} entries but ids have {codes.shape[1]} codes; give one size per level."
            )
        for level, (size, largest) in enumerate(zip(sizes, codes.max(axis=0), strict=True)):
            if not 0 <= largest < size <= MAX_CODES:
                item = int(codes[:, level].argmax())
                raise CatalogError(
                    f"item {item}: code {largest} at level {level} does not fit a level of {size} codes (codes start "
                    f"at 0, at most {MAX_CODES} per level); correct the code or level_sizes[{level}]."
                )
        codes = codes.astype(np.int32)  # a copy: the caller's array stays the caller's
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "level_sizes", sizes)
        try:
            object.__setattr__(self, "spelling", checked_spelling(self.spelling, len(sizes)))
        except SpellingError as error:
            raise CatalogError(str(error)) from error

    @classmethod
    def from_codes(
        cls, codes, spelling: Sequence[str] | None = None, level_sizes: Sequence[int] | None = None
    ) -> Catalog:
        """Makes a catalog of `codes` [items, L]; a level has its largest code + 1 unless
        its size is given. Raises CatalogError as the class.
        """
        codes = np.asarray(codes)
        _check_codes(codes)
        patterns = None if spelling is None else tuple(spelling)
        sizes = tuple(int(code) + 1 for code in codes.max(axis=0)) if level_sizes is None else tuple(level_sizes)
        return cls(codes, sizes, spelling=patterns)

    @classmethod
    def random(cls, items: int, level_sizes: Sequence[int], seed: int = 0) -> Catalog:
        """Makes a catalog of random ids, for a benchmark or a plan without data.

        Args:
          items: number of items. Some may share an id.
          level_sizes: number of codes at each level.
          seed: of the codes.

        Raises:
          CatalogError: as the constructor.
        """
        codes = np.random.default_rng(seed).integers(0, level_sizes, (items, len(level_sizes)))
        return cls(codes, tuple(level_sizes))

    def behind(self, vocabulary: int, bos: int) -> Catalog:
        """Moves the code tokens behind `vocabulary` tokens, one of them BOS `bos`."""
        return dataclasses.replace(self, bos=bos, first_code=vocabulary)

    @property
    def items(self) -> int:
        """Number of items."""
        return self.codes.shape[0]

    @property
    def length(self) -> int:
        """L, the number of codes of an id."""
        return self.codes.shape[1]

    @property
    def vocab_size(self) -> int:
        """Number of tokens: PAD and BOS, or a whole vocabulary, and every code."""
        return self.first_code + sum(self.level_sizes)

    @property
    def code_count(self) -> int:
        """Number of code tokens, of all levels."""
        return sum(self.level_sizes)

    @property
    def new_codes(self) -> int:
        """Number of code tokens that a pretrained model has not been trained with."""
        return 0 if self.vocabulary is not None and self.vocabulary.trained else self.code_count

    @cached_property
    def level_offsets(self) -> np.ndarray:
        """[L] int32, token of code 0 of each level."""
        return np.cumsum((self.first_code, *self.level_sizes[:-1])).astype(np.int32)

    @cached_property
    def _distinct(self) -> tuple[np.ndarray, np.ndarray]:
        ids, rows = np.unique(self.codes, axis=0, return_inverse=True)
        return _frozen(ids), _frozen(rows.reshape(-1).astype(np.int32))

    @property
    def ids(self) -> np.ndarray:
        """[U, L] int32, the distinct ids in lexicographic order."""
        return self._distinct[0]

    @property
    def id_of_item(self) -> np.ndarray:
        """[items] int32, row of `ids` that each item carries."""
        return self._distinct[1]

    @cached_property
    def id_tokens(self) -> np.ndarray:
        """[U, L] int32, `ids` as tokens, in the same order: token ranges of levels
        rise.
        """
        return _frozen(self.ids + self.level_offsets)

    @cached_property
    def collisions(self) -> list[tuple[int, ...]]:
        """Groups of two or more items that share one id, in id order, items ascending."""
        order, offsets = self.items_by_id(np.zeros(self.items, np.int64))
        shared = np.flatnonzero(np.diff(offsets) > 1)
        return [tuple(int(item) for item in order[offsets[row] : offsets[row + 1]]) for row in shared]

    @cached_property
    def _item_tokens(self) -> np.ndarray:
        return _frozen(self.codes + self.level_offsets)

    def tokens(self, items) -> np.ndarray:
        """Returns the tokens [..., L] int32 of `items` [...].

        Raises:
          CatalogError: an item outside 0..items-1.
        """
        items = np.asarray(items)
        if items.size == 0:
            return np.zeros((*items.shape, self.length), np.int32)
        if items.min() < 0 or items.max() >= self.items:
            bad = items[(items < 0) | (items >= self.items)].flat[0]
            raise CatalogError(f"item {bad} is not in the catalog, whose items are 0..{self.items - 1}.")
        return self._item_tokens[items]

    def codes_of_tokens(self, tokens) -> np.ndarray:
        """Returns the codes [..., L] int32 of whole ids given as `tokens` [..., L].

        Raises:
          CatalogError: a token that is no code of the level of its place. Mask invalid
            beams beforehand.
        """
        tokens = np.asarray(tokens)
        if tokens.shape[-1:] != (self.length,):
            raise CatalogError(
                f"tokens of shape {tokens.shape} are no whole ids: the last axis must have {self.length} places."
            )
        codes = tokens - self.level_offsets
        wrong = (codes < 0) | (codes >= np.array(self.level_sizes))
        if wrong.any():
            place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
            raise CatalogError(
                f"token {tokens[place]} at place {place} is no code of level {place[-1]}; mask invalid beams "
                "before asking."
            )
        return codes.astype(np.int32)

    def items_by_id(self, popularity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Groups items by id, in the order in which `expand_ids` lists them.

        Args:
          popularity: [items] interactions of each item in the training split.

        Returns:
          items_sorted [items] int32 and offsets [U + 1] int32: the items of ids[u] are
          items_sorted[offsets[u]:offsets[u + 1]], more popular first, then smaller item
          number.
        """
        popularity = np.asarray(popularity)
        if popularity.shape != (self.items,):
            raise CatalogError(
                f"popularity has shape {popularity.shape}; expected one count per item, ({self.items},)."
            )
        order = np.lexsort((np.arange(self.items), -popularity.astype(np.int64), self.id_of_item))
        counts = np.bincount(self.id_of_item[self.id_of_item >= 0], minlength=len(self.ids))
        return order.astype(np.int32), np.concatenate(([0], np.cumsum(counts))).astype(np.int32)


def expand_ids(id_rows: np.ndarray, items_sorted: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Turns lists of ids into lists of items; an id stands for all items that carry it.

    Args:
      id_rows: [N, K] rows of `Catalog.ids`, best first; below 0 for a place without an
        item.
      items_sorted: of `Catalog.items_by_id`.
      offsets: of `Catalog.items_by_id`.
      k: length of the item lists.

    Returns:
      [N, k] int32 items, cut at k; -1 where the ids do not give enough items.
    """
    id_rows = np.asarray(id_rows)
    counts = np.where(id_rows >= 0, np.diff(offsets)[np.maximum(id_rows, 0)], 0)
    starts = np.cumsum(counts, axis=1) - counts
    lists = np.full((len(id_rows), k), -1, np.int32)
    for nth in range(int(counts.max(initial=0))):
        row, place = np.nonzero((counts > nth) & (starts + nth < k))
        lists[row, starts[row, place] + nth] = items_sorted[offsets[id_rows[row, place]] + nth]
    return lists


def _check_codes(codes: np.ndarray) -> None:
    if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
        raise CatalogError(
            f"codes must be a matrix [items, levels] of integers; got shape {codes.shape} of {codes.dtype}."
        )
    if not len(codes) or not 1 <= codes.shape[1] <= MAX_LENGTH:
        raise CatalogError(
            f"codes have shape {codes.shape}; a catalog needs at least one item and ids of 1 to {MAX_LENGTH} codes."
        )
    if codes.min() < 0:
        item, level = (int(axis) for axis in np.argwhere(codes < 0)[0])
        raise CatalogError(f"item {item} has code {codes[item, level]} at level {level}; codes start at 0.")


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
