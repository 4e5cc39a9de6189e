"""Gives the codes of a catalog their tokens among those of a pretrained model.

The tokenizer is asked for the token of each code. No token is computed: some models
have their codes in the order of the text, and some lack codes that no item has.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.items.tokenizer import TOKENIZER_FILE, TokenizerError, code_texts, read_settings, read_tokenizer
from atspeed_jax.items.vocabulary import Vocabulary

SHOWN = 3  # codes that a message names


def place_codes(catalog: Catalog, directory: Path, stored_rows: int, bos: int) -> Catalog:
    """Numbers the codes of a catalog as tokens of a pretrained model.

    Codes that the tokenizer knows keep their rows. Codes that it does not know come
    behind its tokens. Rows between its tokens and the end of the embedding are padding:
    no prompt and no item uses them.

    Args:
      catalog: whose codes are not placed yet.
      directory: of the model. Without a tokenizer the codes come behind all rows.
      stored_rows: rows of the model's embedding.
      bos: row of the token that begins a prompt.

    Returns:
      The catalog, whose codes are numbered from 0 without gaps if the model knows them.

    Raises:
      TokenizerError: the tokenizer does not fit the model, knows some of the codes
        alone, or does not read each code as one token.
    """
    tokenizer, path = read_tokenizer(directory), directory / TOKENIZER_FILE
    if tokenizer is None:
        return catalog.behind(stored_rows, bos)
    known = tokenizer.get_vocab(with_added_tokens=True)
    size = 1 + max(known.values(), default=-1)
    if size > stored_rows:
        raise TokenizerError(
            f"{path} has tokens 0..{size - 1}, but the model's embedding has {stored_rows} rows: vocabulary and "
            "weights are not of one model"
        )
    texts = code_texts(catalog)
    if not any(text in known for text in texts):
        placed = _appended(catalog, texts, size, stored_rows, bos)
    else:
        placed = _found(catalog, texts, known, path, stored_rows, bos)
        _check_read_whole(tokenizer, placed, path)
    return dataclasses.replace(placed, begins=_adds_bos(tokenizer, directory))


def padding_apart(catalog: Catalog) -> Catalog:
    """Numbers the tokens so that no prompt holds PAD.

    Token 0 of many vocabularies is a character. If prompts hold this character, it
    changes places with a token that no prompt holds.

    Args:
      catalog: placed, with its instruction.

    Returns:
      The catalog; the same one if no prompt holds PAD.
    """
    text = catalog.instruction
    used = {catalog.bos, *(token for piece in (dataclasses.astuple(text) if text else ()) for token in piece)}
    if PAD not in used:
        return catalog
    vocabulary = catalog.vocabulary or Vocabulary(
        np.arange(catalog.vocab_size, dtype=np.int32), _levels(catalog), False
    )
    # From the end: rows behind the tokenizer's tokens, or the tokens it added last.
    spare = next(token for token in range(catalog.first_code - 1, PAD, -1) if token not in used)
    moved = {PAD: spare, spare: PAD}

    def renumbered(piece: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(moved.get(token, token) for token in piece)

    return dataclasses.replace(
        catalog,
        bos=moved.get(catalog.bos, catalog.bos),
        instruction=text
        and dataclasses.replace(text, **{name: renumbered(piece) for name, piece in vars(text).items()}),
        vocabulary=vocabulary.exchanged(PAD, spare),
    )


def check_known(catalog: Catalog, directory: Path) -> None:
    """Checks that a model has been trained with the codes of a catalog.

    Raises:
      TokenizerError: the codes are new to the tokenizer of the model.
    """
    if catalog.vocabulary is not None and catalog.vocabulary.trained:
        return
    tokenizer, text = read_tokenizer(directory), code_texts(catalog)[0]
    if tokenizer is None:
        raise TokenizerError(f"there is no {directory / TOKENIZER_FILE}, which says which token each code is")
    pieces = tokenizer.encode(text, add_special_tokens=False).tokens
    raise TokenizerError(
        f"{directory / TOKENIZER_FILE} has none of the index's codes as tokens: it cuts {text} into {pieces}. Give the "
        "index that the model was trained with, or train the model with these codes (in the checkout: python -m "
        "launch.pipeline)"
    )


def _appended(catalog: Catalog, texts: list[str], size: int, stored_rows: int, bos: int) -> Catalog:
    """The catalog with its codes behind the `size` tokens of a tokenizer."""
    if size == stored_rows:
        return catalog.behind(stored_rows, bos)
    padding = np.arange(size + len(texts), stored_rows)
    rows = np.concatenate((np.arange(size), padding, size + np.arange(len(texts)))).astype(np.int32)
    placed = catalog.behind(size + len(padding), bos)
    return dataclasses.replace(placed, vocabulary=Vocabulary(rows, _levels(catalog), trained=False))


def _found(
    catalog: Catalog, texts: list[str], known: dict[str, int], path: Path, stored_rows: int, bos: int
) -> Catalog:
    """The catalog with the codes that its items have, at the tokens of a tokenizer."""
    used = [np.unique(level) for level in catalog.codes.T]
    levels = _split(texts, catalog.level_sizes)
    spelled = tuple(tuple(level[code] for code in codes) for level, codes in zip(levels, used, strict=True))
    flat = [text for level in spelled for text in level]
    if missing := [text for text in flat if text not in known]:
        raise TokenizerError(
            f"{path} has {len(flat) - len(missing)} of the {len(flat)} codes of the items as tokens, but not "
            f"{', '.join(missing[:SHOWN])}: give the index that the model was trained with, or the model as it was "
            "before item tokens were added"
        )
    rows = np.array([known[text] for text in flat])
    if len(set(flat)) < len(flat):
        twice = Counter(flat).most_common(1)[0][0]
        raise TokenizerError(
            f"{path}: {twice} is a code of two levels, but a token can be the code of one level alone: give each level "
            "codes of its own, such as <a_1> and <b_1>"
        )
    words = np.setdiff1d(np.arange(stored_rows), rows)
    vocabulary = Vocabulary(np.concatenate((words, rows)).astype(np.int32), spelled, trained=True)
    if bos in rows:
        raise TokenizerError(f"{path}: BOS, token {bos}, is a code of the items: set bos of the model in the config")
    dense = np.stack([np.searchsorted(codes, level) for codes, level in zip(used, catalog.codes.T, strict=True)], 1)
    sizes = tuple(map(len, used))
    return dataclasses.replace(
        catalog,
        codes=dense,
        level_sizes=sizes,
        bos=int(vocabulary.tokens(bos)),
        first_code=len(words),
        vocabulary=vocabulary,
    )


def _check_read_whole(tokenizer: Tokenizer, catalog: Catalog, path: Path) -> None:
    """Raises TokenizerError for a code that the tokenizer does not read as one token."""
    assert catalog.vocabulary is not None, "of a model that knows the codes"
    texts, rows = code_texts(catalog), catalog.vocabulary.rows[catalog.first_code :].tolist()
    for text, row, found in zip(texts, rows, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        if found.ids != [row]:
            raise TokenizerError(
                f"{path} has the code {text} as token {row}, but cuts the text {text} into {found.tokens}: add the "
                "codes as tokens that are not normalized (AddedToken(text, normalized=False))"
            )


def _adds_bos(tokenizer: Tokenizer, directory: Path) -> bool:
    """Whether prompts begin with BOS: the tokenizer puts a token before a text, or its
    settings say so.
    """
    bare = tokenizer.encode("", add_special_tokens=False).ids
    if len(tokenizer.encode("").ids) > len(bare):
        return True
    return read_settings(directory).get("add_bos_token") is True


def _levels(catalog: Catalog) -> tuple[tuple[str, ...], ...]:
    """The texts of all codes, by level."""
    return tuple(map(tuple, _split(code_texts(catalog), catalog.level_sizes)))


def _split(texts: list[str], sizes: tuple[int, ...]) -> list[list[str]]:
    ends = np.cumsum(sizes).tolist()
    return [texts[end - size : end] for end, size in zip(ends, sizes, strict=True)]
