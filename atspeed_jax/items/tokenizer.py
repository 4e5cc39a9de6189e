"""Text <-> tokens of item ids, <a_12><b_3>... or as the catalog spells its codes.

The codes stand alone, or behind a pretrained vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.items.spelling import default_spelling, spell

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
MAKE_ONE = "transformers makes one of a tokenizer.model: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
SPECIAL_FILE = "special_tokens_map.json"  # of older releases; its tokens may stand in the settings as well
# What of a pretrained model's settings is true of its tokenizer.json whatever class
# reads it.
KEPT = frozenset(
    (
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "add_bos_token",
        "add_eos_token",
        "model_max_length",
        "additional_special_tokens",
        "extra_special_tokens",
        "padding_side",
        "chat_template",
        "clean_up_tokenization_spaces",
    )
)
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
PAD_TEXT, BOS_TEXT = "<pad>", "<s>"


class TokenizerError(ValueError):
    """A tokenizer that item codes cannot join."""


def code_texts(catalog: Catalog) -> list[str]:
    """Returns the text of every code, in token order from `catalog.first_code`."""
    if catalog.vocabulary is not None:
        return [text for level in catalog.vocabulary.texts for text in level]
    patterns = catalog.spelling or default_spelling(catalog.length)
    levels = zip(patterns, catalog.level_sizes, strict=True)
    return [spell(pattern, code) for pattern, size in levels for code in range(size)]


def item_tokenizer(catalog: Catalog) -> Tokenizer:
    """Makes a tokenizer that turns "<a_1><b_2>..." into BOS and codes.

    The tokenizers library raises an error for text that is no code of the catalog.
    """
    words = {PAD_TEXT: PAD, BOS_TEXT: catalog.bos}
    words |= {text: catalog.first_code + number for number, text in enumerate(code_texts(catalog))}
    tokenizer = Tokenizer(WordLevel(words))
    tokenizer.pre_tokenizer = Split(Regex("<[^>]*>"), "isolated")
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS_TEXT} $A", special_tokens=[(BOS_TEXT, catalog.bos)])
    tokenizer.add_special_tokens([PAD_TEXT, BOS_TEXT])
    return tokenizer


def read_tokenizer(directory: Path) -> Tokenizer | None:
    """Reads tokenizer.json of a pretrained model.

    Returns:
      The tokenizer, without truncation and padding, or None if the directory has none.

    Raises:
      TokenizerError: the file cannot be read.
    """
    path = directory / TOKENIZER_FILE
    if not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{path} cannot be read ({error}); expected what the tokenizers library writes") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def extended_tokenizer(directory: Path, catalog: Catalog) -> Tokenizer | None:
    """Reads the tokenizer of a pretrained model with a token for every code.

    Codes that the tokenizer lacks are added behind its tokens.

    Args:
      directory: of the model.
      catalog: placed among the tokens of that model (`items.placement.place_codes`).

    Returns:
      The tokenizer, whose numbers are rows of the model's embedding (`Vocabulary`), or
      None if the directory has none.

    Raises:
      TokenizerError: the tokenizer cannot be read, or is not the one by which the
        catalog was placed.
    """
    tokenizer, path = read_tokenizer(directory), directory / TOKENIZER_FILE
    if tokenizer is None:
        return None
    texts, vocabulary = code_texts(catalog), catalog.vocabulary
    numbers = np.arange(catalog.first_code, catalog.vocab_size)
    rows = numbers if vocabulary is None else vocabulary.rows[numbers]
    if vocabulary is None or not vocabulary.trained:
        # normalized: a normalizer that begins every text with a space would want one
        # before every code.
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
    for text, row in zip(texts, rows.tolist(), strict=True):
        if (found := tokenizer.token_to_id(text)) != row:
            raise TokenizerError(
                f"{path} gives {text} the token {found}, but the code has row {row} of the model's embedding: "
                "tokenizer and weights are not of one model"
            )
    return tokenizer


def item_settings(positions: int) -> dict:
    """Returns the settings that AutoTokenizer reads beside `item_tokenizer`."""
    settings = {"model_max_length": positions, "padding_side": "left", "clean_up_tokenization_spaces": False}
    return FAST | settings | {"pad_token": PAD_TEXT, "bos_token": BOS_TEXT}


def extended_settings(directory: Path) -> dict:
    """Returns the settings that AutoTokenizer reads beside `extended_tokenizer`.

    They are those of the directory but the tokenizer class: a class such as
    LlamaTokenizer would make the tokenizer from the vocabulary of the base model,
    without the codes.

    Raises:
      TokenizerError: the settings of the directory cannot be read.
    """
    settings = dict(FAST)
    for path in (directory / SPECIAL_FILE, directory / SETTINGS_FILE):
        try:
            given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise TokenizerError(f"{path} cannot be read ({error}); expected JSON as transformers writes it") from error
        if not isinstance(given, dict):
            raise TokenizerError(f"{path} holds a {type(given).__name__}, expected a JSON object")
        settings |= {name: value for name, value in given.items() if name in KEPT and value is not None}
    return settings
