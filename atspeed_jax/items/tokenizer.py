"""Text <-> tokens of item ids, <a_12><b_3>... as in the AtSpeed index.

The codes stand alone, or behind a pretrained vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from atspeed_jax.items.catalog import PAD, Catalog

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
LEVELS = "abcdefgh"


class TokenizerError(ValueError):
    """A tokenizer that item codes cannot join."""


def code_texts(catalog: Catalog) -> list[str]:
    """Returns the text of every code, in token order from `catalog.first_code`."""
    levels = zip(LEVELS, catalog.level_sizes, strict=False)
    return [f"<{letter}_{code}>" for letter, size in levels for code in range(size)]


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


def extended_tokenizer(directory: Path, catalog: Catalog) -> Tokenizer | None:
    """Adds a token for every code behind the tokens of a pretrained tokenizer.

    Returns:
      The tokenizer, or None if the directory has none.

    Raises:
      TokenizerError: the tokenizer cannot be read, its vocabulary is not as long as the
        model's embedding, or it already has the text of a code.
    """
    path = directory / TOKENIZER_FILE
    if not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{path} cannot be read ({error}); expected what the tokenizers library writes") from error
    known, texts = tokenizer.get_vocab(with_added_tokens=True), code_texts(catalog)
    if taken := [text for text in texts if text in known]:
        raise TokenizerError(
            f"{path} already has {len(taken)} of the catalog's codes as tokens, such as {taken[0]}: give the model "
            "as it was before item tokens were added"
        )
    if 1 + max(known.values(), default=-1) != catalog.first_code:
        raise TokenizerError(
            f"{path} has tokens 0..{max(known.values(), default=-1)}, but the model's embedding has "
            f"{catalog.first_code} rows: vocabulary and weights are not of one model"
        )
    # normalized: a normalizer that begins every text with a space would want one before
    # every code.
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
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
