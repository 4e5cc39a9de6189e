"""The prompt as text: items within an instruction, in the tokens of a pretrained model.

Item codes are tokens of the vocabulary, at which a tokenizer cuts a text before it does
anything else. So the pieces of text between the codes are tokenized once, and a prompt
is put together from them (`data.prompts`). A tokenizer that gives other tokens for the
whole text is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.items.catalog import Catalog, Instruction
from atspeed_jax.items.tokenizer import MAKE_ONE, TOKENIZER_FILE, code_texts, extended_tokenizer

PLACEHOLDER = "{items}"
# Word for word that of the public code (ALGORITHM.md section 7).
TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nThe user has interacted with items {items} in chronological order. Can you predict the next "
    "possible item that the user may expect?\n\n### Response:"
)
SEPARATOR = ", "


class PromptError(ValueError):
    """An instruction that cannot stand around items."""


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """What a model reads.

    Attributes:
      kind: "item", the codes of the newest items behind BOS; or "instruction", for
        models that begin with a Hugging Face directory: `template` with these items.
      template: text with {items} where the items stand; the codes of the next item
        follow it without a space.
      separator: text between two items.
    """

    kind: Literal["item", "instruction"] = "item"
    template: str = TEMPLATE
    separator: str = SEPARATOR

    def __post_init__(self):
        if self.template.count(PLACEHOLDER) != 1:
            raise PromptError(
                f"template={self.template!r} has {PLACEHOLDER} {self.template.count(PLACEHOLDER)} times: put it once, "
                "where the user's items are to stand"
            )
        if self.kind == "item" and (self.template, self.separator) != (TEMPLATE, SEPARATOR):
            raise PromptError(
                "template and separator are read with kind='instruction' alone: set it, or leave them out"
            )

    def text(self, items: Sequence[str]) -> str:
        """The template with these items, each as text."""
        return self.template.replace(PLACEHOLDER, self.separator.join(items))


def read_instruction(directory: Path, catalog: Catalog, prompt: PromptConfig) -> Instruction | None:
    """Reads the pieces of the prompt as tokens of a pretrained model.

    Args:
      directory: of the model.
      catalog: placed among the tokens of that model (`items.placement.place_codes`).
      prompt: the text.

    Returns:
      The pieces; None for items alone, if the tokenizer (if any) reads them as their
      codes.

    Raises:
      PromptError: no tokenizer for a text, or a text that the tokenizer does not turn
        into these pieces.
      TokenizerError: as `extended_tokenizer`.
    """
    tokenizer, path = extended_tokenizer(directory, catalog), directory / TOKENIZER_FILE
    alone = prompt.kind == "item"
    if tokenizer is None:
        if alone:
            return None
        raise PromptError(
            f"there is no {path}: an instruction is text, put the model's tokenizer there or take prompt.kind='item'; "
            f"{MAKE_ONE}"
        )
    text = PromptConfig("instruction", PLACEHOLDER, "") if alone else prompt
    codes, bos = code_texts(catalog), [catalog.bos] if catalog.begins else []

    def text_of(item: int) -> str:
        return "".join(codes[token - catalog.first_code] for token in catalog.tokens(item).tolist())

    def numbered(rows: list[int]) -> list[int]:
        return rows if catalog.vocabulary is None else catalog.vocabulary.tokens(rows).tolist()

    def encoded(items: Sequence[int], answer: Sequence[int] = ()) -> list[int]:
        whole_text = text.text([text_of(item) for item in items]) + "".join(map(text_of, answer))
        tokens = numbered(tokenizer.encode(whole_text, add_special_tokens=False).ids)
        whole = numbered(tokenizer.encode(whole_text).ids)
        if whole not in (tokens, [catalog.bos, *tokens]):
            raise PromptError(
                f"{path} adds tokens to a text: {whole[:3]}...{whole[-3:]}, expected BOS ({catalog.bos}) before it or "
                "nothing; take them out of its post_processor, or set bos of the model in the config"
            )
        # A prompt of no tokens at all is BOS alone (`Catalog.bos`).
        return [*bos, *tokens] if bos or items or text.template != PLACEHOLDER else [catalog.bos, *tokens]

    pieces = _cut(encoded((0, 0)), catalog)
    found = None if pieces is None else Instruction(*pieces, empty=tuple(encoded(())))
    if found is None or any(encoded(*probe) != _joined(catalog, found, *probe) for probe in _probes(catalog)):
        raise PromptError(
            f"{path} does not take template={text.template!r} with separator={text.separator!r} apart at the item "
            "codes: leave texts like <a_1> out of both, and tokens of the vocabulary that reach over a code's < or >"
        )
    return None if alone else found


def same_instruction(found: Mapping[str, Instruction]) -> Instruction:
    """The one instruction of all models.

    Args:
      found: {directory of a model: its instruction}.

    Raises:
      PromptError: two tokenizers differ over the instruction.
    """
    (first, instruction), *others = found.items()
    for directory, other in others:
        for part, tokens in vars(instruction).items():
            pairs = itertools.zip_longest(tokens, getattr(other, part))
            for position, (one, two) in enumerate(pairs):
                if one != two:
                    raise PromptError(
                        f"draft and target must read the same tokens, but at position {position} of the instruction's "
                        f"{part} is {one} in {first} and {two} in {directory}: take models of one tokenizer"
                    )
    return instruction


def _cut(tokens: list[int], catalog: Catalog) -> tuple[tuple[int, ...], ...] | None:
    """Head, separator and tail of a prompt of two items; None if the text holds other
    codes.
    """
    positions = [position for position, token in enumerate(tokens) if token >= catalog.first_code]
    if len(positions) != 2 * catalog.length:
        return None
    first, second = positions[: catalog.length], positions[catalog.length :]
    return tuple(tokens[: first[0]]), tuple(tokens[first[-1] + 1 : second[0]]), tuple(tokens[second[-1] + 1 :])


def _joined(catalog: Catalog, instruction: Instruction, items: Sequence[int], answer: Sequence[int]) -> list[int]:
    """Tokens of a prompt that is put together from pieces, and of an answer."""
    prompt = prompt_tokens(dataclasses.replace(catalog, instruction=instruction), items, len(items))
    return [*prompt.tolist(), *catalog.tokens(answer).reshape(-1).tolist()]


def _probes(catalog: Catalog) -> list[tuple[list[int], list[int]]]:
    """(items, answer) pairs that show every code which the text can touch: all of the
    first level and of the last.
    """
    ends = [np.unique(catalog.codes[:, level], return_index=True)[1].tolist() for level in (0, -1)]
    every = ends[0] + ends[1]
    return [([], [0]), (every, []), *(([item], [item]) for item in every)]
