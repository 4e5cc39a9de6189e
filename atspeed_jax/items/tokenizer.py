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
CHAT_FILE, CHAT_DIRECTORY = "chat_template.jinja", "additional_chat_templates"
# What of a pretrained model's settings is true of its tokenizer.json whatever class
# reads it.
KEPT = frozenset(
    (
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
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
      TokenizerError: as `read_settings`.
    """
    given = read_settings(directory).items()
    return FAST | {name: value for name, value in given if name in KEPT and value is not None}


def read_settings(directory: Path) -> dict:
    """Reads the settings that stand beside the tokenizer of a pretrained model.

    Returns:
      The fields of special_tokens_map.json and of tokenizer_config.json, which goes
      first. "chat_template" is that of chat_template.jinja and of the files in
      additional_chat_templates/, if there are any: a text, or a list of
      {"name", "template"}. Fields may be None.

    Raises:
      TokenizerError: a file cannot be read.
    """
    settings = {}
    for path in (directory / SPECIAL_FILE, directory / SETTINGS_FILE):
        try:
            given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise TokenizerError(f"{path} cannot be read ({error}); expected JSON as transformers writes it") from error
        if not isinstance(given, dict):
            raise TokenizerError(f"{path} holds a {type(given).__name__}, expected a JSON object")
        settings |= {name: value for name, value in given.items() if value is not None or name not in settings}
    return settings | _chat_files(directory)


def _chat_files(directory: Path) -> dict:
    """The chat templates of a directory that are files, as a setting; {} without any."""
    paths = {"default": directory / CHAT_FILE} if (directory / CHAT_FILE).is_file() else {}
    paths |= {path.stem: path for path in sorted((directory / CHAT_DIRECTORY).glob("*.jinja"))}
    try:
        texts = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"a chat template of {directory} cannot be read: {error}") from error
    if not texts:
        return {}
    alone = texts["default"] if list(texts) == ["default"] else None
    return {"chat_template": alone or [{"name": name, "template": text} for name, text in texts.items()]}
