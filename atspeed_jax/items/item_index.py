"""The ids of all items, from the codes that a file gives for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atspeed_jax.items.catalog import MAX_CODES, MAX_LENGTH, Catalog
from atspeed_jax.items.names import Name
from atspeed_jax.items.spelling import SpellingError, checked_spelling, parse_code, spell

EXPECTED = 'expected {"0": ["<a_47>", "<b_103>", ...], ...}'


class SourceError(ValueError):
    """Raw data that cannot be read; the message names the file, the line or entry, and
    the remedy.
    """


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """What an index says.

    Attributes:
      codes: [items, L] int32, the id of the item of each row.
      spelling: how the codes of each level are written; None for "<a_{}>", "<b_{}>",
        ... (`items.spelling`).
      titles: of the items that have one, by row.
      names: what the file calls the item of each row, such as an ASIN; None for the
        number.
      model_tokens: per level the token of each code in the model that the index was
        made for, [codes of the level] int64; None for an index that names no tokens.
      level_sizes: codes of each level that a model of these items has tokens for; None
        for those up to the largest one in use.
      numbers: [items] int64, the item of each row, ascending; None where row n is item
        n, as in each index without gaps.
      codebooks: fingerprint of the codebooks that the ids were made with; None where
        the file does not say.
    """

    codes: np.ndarray
    spelling: tuple[str, ...] | None = None
    titles: Mapping[int, str] = field(default_factory=dict)
    names: tuple[Name, ...] | None = None
    model_tokens: tuple[np.ndarray, ...] | None = None
    level_sizes: tuple[int, ...] | None = None
    numbers: np.ndarray | None = None
    codebooks: str | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalog of these ids.

        Raises:
          CatalogError: the ids are no catalog.
        """
        return Catalog.from_codes(self.codes, self.spelling, self.level_sizes)


@dataclass(frozen=True)
class IndexSettings:
    """What a config says about an index.

    Attributes:
      spelling: how codes are written that an index gives as integers, a pattern per
        level; None for "<a_{}>", "<b_{}>", ...
      levels: codes of an id that are kept, the first ones; None for all.
    """

    spelling: tuple[str, ...] | None = None
    levels: int | None = None


AS_IT_IS = IndexSettings()


def index_of(
    file: Path, ids: Sequence, settings: IndexSettings = AS_IT_IS, numbers: Sequence[int] | None = None
) -> ItemIndex:
    """Makes an index of the codes of every item.

    Args:
      file: that holds them, for messages.
      ids: per item a list of codes, all as text or all as integers.
      settings: what the config says about it.
      numbers: the item of each entry of `ids`, ascending; None for 0, 1, ...

    Raises:
      SourceError: ids of several lengths, malformed codes, or codes of a level that do
        not follow one pattern; it names file and item.
    """
    if not len(ids):
        raise SourceError(f"{file}: no items; {EXPECTED}.")
    items = range(len(ids)) if numbers is None else numbers
    for item, codes in zip(items, ids, strict=True):
        if not isinstance(codes, list) or not codes or (settings.levels is None and len(codes) > MAX_LENGTH):
            raise SourceError(
                f'{file}: item {item} has {codes!r}; expected a list of 1 to {MAX_LENGTH} tokens such as ["<a_47>", '
                '"<b_103>"].'
            )
    ids = of_one_length(file, ids, settings.levels, items)
    integers = all(type(code) is int for code in ids[0])
    codes, found = (_integers(file, ids, items), None) if integers else _texts(file, ids, items)
    spelling = settings.spelling if integers else found
    try:
        checked = checked_spelling(spelling, codes.shape[1])
    except SpellingError as error:
        raise SourceError(f"{file}: {'config.data.' if integers else ''}{error}") from error
    if not integers and settings.spelling is not None and settings.spelling != found:
        raise SourceError(
            f"{file}: codes are written {found}, but config.data.spelling={settings.spelling}; leave data.spelling "
            "out, it is for codes that are integers."
        )
    dense = items[-1] == len(items) - 1
    return ItemIndex(codes, checked, numbers=None if dense else np.array(items, np.int64))


def of_one_length(file: Path, ids: Sequence[list], levels: int | None, items: Sequence[int]) -> Sequence[list]:
    """Cuts ids to `levels` codes, if that is not None.

    Args:
      file: that holds them, for messages.
      ids: per item a list of codes.
      levels: codes of an id that are kept.
      items: the item of each id.

    Raises:
      SourceError: ids of several lengths, or shorter than `levels`; it names file and
        item.
    """
    if levels is not None:
        short = next(((item, len(codes)) for item, codes in zip(items, ids, strict=True) if len(codes) < levels), None)
        if short is not None:
            raise SourceError(
                f"{file}: item {short[0]} has {short[1]} codes, but config.data.levels={levels}; lower it."
            )
        return [codes[:levels] for codes in ids]
    for item, codes in zip(items, ids, strict=True):
        if len(codes) != len(ids[0]):
            shortest = min(map(len, ids))
            raise SourceError(
                f"{file}: item {item} has {len(codes)} codes, item {items[0]} has {len(ids[0])}; all ids must have the "
                "same length. If the last code only tells items of one id apart, set config.data.levels="
                f"{shortest}: ids are cut to {shortest} codes, and an id that several items share stands for all of "
                "them."
            )
    return ids


def _texts(file: Path, ids: Sequence[list], items: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """codes [items, L] and the pattern of each level, of codes as text."""
    patterns: list[str] = []
    known: list[dict[object, int]] = [{} for _ in ids[0]]
    codes = np.zeros((len(ids), len(ids[0])), np.int32)
    for row, (item, tokens) in enumerate(zip(items, ids, strict=True)):
        for level, token in enumerate(tokens):
            code = known[level].get(token) if isinstance(token, str) else None
            if code is None:
                pattern, code = _parse_code(file, item, level, token)
                if row == 0:
                    patterns.append(pattern)
                elif pattern != patterns[level]:
                    raise SourceError(
                        f"{file}: item {item}, token {token!r} at position {level + 1} begins with {_name(pattern)!r} "
                        f"where item {items[0]} has {_name(patterns[level])!r}; a level has one letter, so correct the "
                        "token or the order of the codes."
                    )
                known[level][token] = code
            codes[row, level] = code
    return codes, tuple(patterns)


def _parse_code(file: Path, item: int, level: int, token) -> tuple[str, int]:
    """(pattern, number) of a code as text."""
    where, parsed = f"{file}: item {item}, position {level + 1}", parse_code(token)
    if parsed is None or parsed[1] >= MAX_CODES:
        raise SourceError(
            f"{where}: malformed token {token!r}; expected <letter_number> such as <a_47>, with a number below "
            f"{MAX_CODES}."
        )
    if spell(*parsed) != token:
        raise SourceError(
            f"{where}: {token!r} has a leading zero, but a code has one spelling; expected {spell(*parsed)!r}."
        )
    return parsed


def _name(pattern: str) -> str:
    """What stands before the number, such as "a" or "s_a"."""
    return pattern[1:].partition("_{")[0]


def _integers(file: Path, ids: Sequence[list], items: Sequence[int]) -> np.ndarray:
    """codes [items, L] of codes as integers."""
    for item, codes in zip(items, ids, strict=True):
        for level, code in enumerate(codes):
            if type(code) is not int or not 0 <= code < MAX_CODES:
                raise SourceError(
                    f"{file}: item {item}, position {level + 1}: malformed code {code!r}; expected an integer from 0 "
                    f"to {MAX_CODES - 1}, as in item {items[0]}."
                )
    return np.array(ids, np.int32)
