"""Indices that are no JSON object: JSON lines, parquet and the info file of MiniOneRec."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.items.catalog import MAX_LENGTH
from atspeed_jax.items.item_index import IndexSettings, ItemIndex, SourceError, index_of, of_one_length
from atspeed_jax.items.names import NamesError, check_names
from atspeed_jax.items.tokenizer import read_tokenizer

LEVEL_SIZES = b"level_sizes"  # in the metadata of a parquet index
CODEBOOKS = b"codebooks"  # likewise
CODE = re.compile(r"<[^<>]*>")
_FORMS = (("name", "codes"), ("pid", "sid"))  # columns of names and of codes
_LARGEST = 2**31  # no model has that many tokens


def read_json_lines(file: Path, settings: IndexSettings) -> ItemIndex:
    """Reads {"item_id": "B01", "token_ids": [151700, 160001], "metadata": {}} per line.

    The n-th line is item n. The codes of a level are its tokens in ascending order,
    from 0 on. A "title" of the metadata is the title of the item.

    Raises:
      SourceError: a line of another form, an item twice, or a token at two levels.
    """
    names, ids, titles, named = [], [], {}, False
    for number, line in lines(file):
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise SourceError(f"{where}: {line!r} is no JSON ({error}); expected an item per line.") from error
        tokens = entry.get("token_ids") if isinstance(entry, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < _LARGEST for token in tokens):
            raise SourceError(f'{where}: {line!r}; expected {{"item_id": "B01", "token_ids": [151700, 160001, ...]}}.')
        if not 1 <= len(tokens) <= MAX_LENGTH:
            raise SourceError(f"{where}: {len(tokens)} tokens; expected 1 to {MAX_LENGTH}.")
        metadata = entry.get("metadata")
        title = metadata.get("title") if isinstance(metadata, dict) else None
        if isinstance(title, str) and title.strip():
            titles[len(ids)] = title
        names.append(str(entry.get("item_id", len(ids))))
        named |= "item_id" in entry
        ids.append(tokens)
    if not ids:
        raise SourceError(f"{file}: no items; expected an item per line.")
    _check_names(file, names)
    tokens = np.array(of_one_length(file, ids, settings.levels, range(len(ids))), np.int64)
    levels = [np.unique(level, return_inverse=True) for level in tokens.T]
    for level, (one, _) in enumerate(levels):
        for other, (two, _) in enumerate(levels[:level]):
            if len(both := np.intersect1d(one, two)):
                raise SourceError(
                    f"{file}: token {both[0]} is a code of levels {other + 1} and {level + 1}; each level needs tokens "
                    "that no other level has."
                )
    codes = np.stack([np.reshape(code, -1) for _, code in levels], 1).tolist()
    index = index_of(file, codes, dataclasses.replace(settings, levels=None))
    model_tokens = tuple(level for level, _ in levels)
    return dataclasses.replace(index, titles=titles, names=tuple(names) if named else None, model_tokens=model_tokens)


def in_words_of(index: ItemIndex, file: Path, directory: Path) -> ItemIndex:
    """Writes the codes of an index that names tokens as the model's tokenizer does.

    Args:
      index: read of `file`. One that names no tokens is returned as it is.
      directory: of the model that the index was made for.

    Raises:
      SourceError: a token that the tokenizer does not have, or texts of a level that do
        not follow one pattern.
    """
    tokenizer = None if index.model_tokens is None else read_tokenizer(directory)
    if index.model_tokens is None or tokenizer is None:
        return index
    texts = [[tokenizer.id_to_token(token) for token in level] for level in index.model_tokens]
    for level, tokens in zip(texts, index.model_tokens, strict=True):
        if None in level:
            raise SourceError(
                f"{file}: the tokenizer in {directory} has no token {tokens[level.index(None)]}; give the model that "
                "the index was made for."
            )
    ids = [[texts[level][code] for level, code in enumerate(codes)] for codes in index.codes.tolist()]
    found = index_of(file, ids)
    return dataclasses.replace(index, codes=found.codes, spelling=found.spelling, model_tokens=None)


def read_parquet(file: Path, settings: IndexSettings) -> ItemIndex:
    """Reads a row per item, in one of two forms.

    1. Columns name, codes (integers or texts) and item, whose numbers may have gaps.
       Without the column item, row n is item n.
    2. Columns pid (the name of an item) and sid (its codes). Row n is item n.

    A column title is read if the file has one. Names keep the type of their column: a
    text or a whole number.

    Raises:
      SourceError: another file, a row without name or codes, or an item twice.
    """
    try:
        schema = pq.read_schema(file)
        name, codes = next((form for form in _FORMS if set(form) <= set(schema.names)), (None, None))
        if name is None:
            raise SourceError(
                f"{file}: has columns {schema.names}; expected name and codes (with item and title, if known), or pid "
                "and sid."
            )
        given = {column for column in ("item", "title") if column in schema.names} - (
            {"item"} if name == "pid" else set()
        )
        table = pq.read_table(file, columns=[name, codes, *sorted(given)])
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{file}: cannot be read as parquet ({error}); expected columns name and codes.") from error
    if "item" in given:
        table = table.sort_by("item")
    numbers = _numbers(file, table["item"].to_pylist()) if "item" in given else None
    names = tuple(table[name].to_pylist())
    _check_names(file, names)
    titles = table["title"].to_pylist() if "title" in given else []
    index = index_of(file, table[codes].to_pylist(), settings, numbers)
    known = {row: title for row, title in enumerate(titles) if isinstance(title, str) and title.strip()}
    sizes = _level_sizes(file, schema, index.codes)
    codebooks = (schema.metadata or {}).get(CODEBOOKS)
    made_with = None if codebooks is None else codebooks.decode("ascii", errors="replace")
    return dataclasses.replace(index, titles=known, names=names, level_sizes=sizes, codebooks=made_with)


def _level_sizes(file: Path, schema: pa.Schema, codes: np.ndarray) -> tuple[int, ...] | None:
    """The sizes of the codebooks, which launch.build_ids keeps beside the columns."""
    stored = (schema.metadata or {}).get(LEVEL_SIZES)
    if stored is None:
        return None
    sizes = json.loads(stored)[: codes.shape[1]]
    for level, (size, largest) in enumerate(zip(sizes, codes.max(axis=0).tolist(), strict=True)):
        if largest >= size:
            raise SourceError(
                f"{file}: code {largest} at level {level}, but the codebook of that level has {size} codes."
            )
    return tuple(sizes)


def _numbers(file: Path, numbers: list) -> list[int]:
    """The column item, ascending. Raises SourceError for what is no number of an item,
    or comes twice.
    """
    for row, number in enumerate(numbers):
        if type(number) is not int or number < 0:
            raise SourceError(f"{file}: column item has {number!r}; expected the number of an item, from 0 on.")
        if row and number == numbers[row - 1]:
            raise SourceError(f"{file}: item {number} has two rows; keep one.")
    return numbers


def read_info(file: Path, settings: IndexSettings) -> ItemIndex:
    """Reads `<a_99><b_53><c_168> TAB title TAB 719` per line, in any order.

    Raises:
      SourceError: a line of another form, or an item twice.
    """
    ids, titles = {}, {}
    for number, line in lines(file):
        first, *title, last = line.split("\t")
        codes = CODE.findall(first)
        if not title or not codes or "".join(codes) != first.strip() or not last.strip().isdecimal():
            raise SourceError(
                f"{file}, line {number}: {line!r}; expected codes, a title and an item, TAB between them."
            )
        item = int(last)
        if item in ids:
            raise SourceError(f"{file}, line {number}: item {item} again; an item has one line.")
        ids[item] = codes
        if text := "\t".join(title).strip():
            titles[item] = text
    numbers = sorted(ids)
    index = index_of(file, [ids[item] for item in numbers], settings, numbers)
    return dataclasses.replace(index, titles={row: titles[item] for row, item in enumerate(numbers) if item in titles})


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields number (from 1 on) and text of the lines of a file that are not blank.

    Raises:
      SourceError: the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as text:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error}).") from error


def _check_names(file: Path, names: Sequence) -> None:
    """Raises SourceError for a name that cannot be one, or is that of two items."""
    try:
        check_names(names, str(file))
    except NamesError as error:
        raise SourceError(f"{error}. Keep one row per item.") from error
