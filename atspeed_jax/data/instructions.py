"""The prompt as text: items within an instruction or a chat, in the tokens of a
pretrained model.

Item codes are tokens of the vocabulary, at which a tokenizer cuts a text before it does
anything else. So the pieces of text between the codes are tokenized once, and a prompt
is put together from them (`data.prompts`). A tokenizer that gives other tokens for the
whole text is refused.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from atspeed_jax.data.chat import GIVEN, Chat, PromptError
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
_TEXTS = ("template", "separator", "before", "after")
_READ = {"item": (), "instruction": _TEXTS, "chat": (*_TEXTS, "system", "chat_options", "date")}


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """What a model reads.

    The codes of one id follow one another without text in between.

    Attributes:
      kind: "item", the codes of the newest items behind BOS. The others are for models
        that begin with a Hugging Face directory: "instruction", `template` with these
        items; "chat", the chat template of the model, in which the user says this.
      template: text with {items} where the items stand.
      separator: text between two items.
      before: text before each id. A prompt ends with it, since the codes of the next
        item follow without a space.
      after: text behind each id of the history.
      system: text of the system message of a chat; "" for a chat without one.
      chat_options: further variables of the chat template, as a JSON object such as
        '{"enable_thinking": false}'.
      date: the day that a chat template writes as today, such as "2026-01-31"; "" for
        a template that writes none.

    Raises:
      PromptError: fields that do not fit.
    """

    kind: Literal["item", "instruction", "chat"] = "item"
    template: str = TEMPLATE
    separator: str = SEPARATOR
    before: str = ""
    after: str = ""
    system: str = ""
    chat_options: str = "{}"
    date: str = ""

    def __post_init__(self):
        if self.template.count(PLACEHOLDER) != 1:
            raise PromptError(
                f"template={self.template!r} has {PLACEHOLDER} {self.template.count(PLACEHOLDER)} times: put it once, "
                "where the user's items are to stand"
            )
        if PLACEHOLDER in self.system:
            raise PromptError(f"system={self.system!r} has {PLACEHOLDER}: the user's items stand in template")
        for field in dataclasses.fields(self):
            readers = [kind for kind, names in _READ.items() if field.name in names]
            if field.name != "kind" and self.kind not in readers and getattr(self, field.name) != field.default:
                raise PromptError(
                    f"{field.name} is read with kind={' or '.join(map(repr, readers))} alone: set it, or leave "
                    f"{field.name} out"
                )
        _ = self.options  # complains now
        try:
            _ = self.date and datetime.date.fromisoformat(self.date)
        except ValueError as error:
            raise PromptError(f"date={self.date!r}: expected a day such as 2026-01-31") from error

    @property
    def options(self) -> dict[str, Any]:
        """Further variables of the chat template."""
        try:
            options = json.loads(self.chat_options)
        except ValueError as error:
            raise PromptError(f"chat_options={self.chat_options!r} is no JSON ({error})") from error
        if not isinstance(options, dict) or options.keys() & set(GIVEN):
            raise PromptError(
                f"chat_options={self.chat_options!r}: expected a JSON object such as "
                f"'{{\"enable_thinking\": false}}', without {', '.join(GIVEN)}"
            )
        return options

    def text(self, items: Sequence[str]) -> str:
        """The template with these items, each as text: what the user says in a chat."""
        return self.template.replace(
            PLACEHOLDER, self.separator.join(f"{self.before}{item}{self.after}" for item in items)
        )


def read_instruction(directory: Path, catalog: Catalog, prompt: PromptConfig) -> Instruction | None:
    """Reads the pieces of the prompt as tokens of a pretrained model.

    A chat begins with BOS if the chat template says so, whatever `catalog.begins` says.

    Args:
      directory: of the model.
      catalog: placed among the tokens of that model (`items.placement.place_codes`).
      prompt: the text.

    Returns:
      The pieces; None for items alone, if the tokenizer (if any) reads them as their
      codes.

    Raises:
      PromptError: no tokenizer for a text, no chat template for a chat, or a text that
        the tokenizer does not turn into these pieces.
      TokenizerError: as `extended_tokenizer` and `read_settings`.
    """
    tokenizer, path = extended_tokenizer(directory, catalog), directory / TOKENIZER_FILE
    alone = prompt.kind == "item"
    if tokenizer is None:
        if alone:
            return None
        raise PromptError(
            f"there is no {path}: {'a chat' if prompt.kind == 'chat' else 'an instruction'} is text, put the model's "
            f"tokenizer there or take prompt.kind='item'; {MAKE_ONE}"
        )
    text = PromptConfig("instruction", PLACEHOLDER, "") if alone else prompt
    encoder = _Encoder(tokenizer, path, catalog, _writer(directory, text), text.kind == "chat")
    encoder.check_added()
    pieces = _cut(encoder.encoded((0, 0)), catalog)
    found = None if pieces is None else Instruction(*pieces, empty=tuple(encoder.encoded(())))
    joins = dataclasses.replace(catalog, instruction=found)  # once: it copies the codes of all items
    if found is None or any(encoder.encoded(*probe) != _joined(joins, *probe) for probe in _probes(catalog)):
        given = {name: getattr(text, name) for name in (*_TEXTS, "system") if getattr(text, name) or name in _TEXTS[:2]}
        where = "these texts and out of the chat template" if text.kind == "chat" else "these texts"
        raise PromptError(
            f"{path} does not take {', '.join(f'{name}={value!r}' for name, value in given.items())} apart at the item "
            f"codes: leave texts like {code_texts(catalog)[0]} out of {where}, and tokens of the vocabulary that reach "
            "over a code's < or >"
        )
    return None if alone else found


def _writer(directory: Path, prompt: PromptConfig) -> Callable[[Sequence[str]], str]:
    """The function that writes a prompt with the texts of items."""
    if prompt.kind != "chat":
        return lambda items: prompt.text(items) + prompt.before
    chat = Chat(directory, system=prompt.system, options=prompt.options, date=prompt.date)
    if (times := chat.text(prompt.template).count(PLACEHOLDER)) != 1:
        raise PromptError(
            f"the chat template of {directory} shows the user's text with {PLACEHOLDER} {times} times, or changes it; "
            "expected the text as it is, once: take prompt.kind='instruction' with the text of the chat as template"
        )
    return lambda items: chat.text(prompt.text(items)) + prompt.before


@dataclasses.dataclass(frozen=True, eq=False)
class _Encoder:
    """Texts of a prompt as tokens.

    Attributes:
      tokenizer: of the model, with the codes.
      path: of the tokenizer.
      catalog: placed among its tokens.
      written: the prompt with the texts of items.
      whole: whether BOS is part of the text.
    """

    tokenizer: Tokenizer
    path: Path
    catalog: Catalog
    written: Callable[[Sequence[str]], str]
    whole: bool

    def encoded(self, items: Sequence[int], answer: Sequence[int] = ()) -> list[int]:
        """The tokens of a prompt and of an answer."""
        prompt, bos = self.written([self._text_of(item) for item in items]), self.catalog.bos
        text = prompt + "".join(map(self._text_of, answer))
        tokens = self._numbered(self.tokenizer.encode(text, add_special_tokens=False).ids)
        # A prompt of no tokens at all is BOS alone (`Catalog.bos`).
        return [bos, *tokens] if not prompt or (self.catalog.begins and not self.whole) else tokens

    def check_added(self) -> None:
        """Raises PromptError if the tokenizer adds other tokens than BOS to a text."""
        text, bos = self.written([self._text_of(0)]), self.catalog.bos
        bare, whole = (self._numbered(self.tokenizer.encode(text, add_special_tokens=add).ids) for add in (False, True))
        if not self.whole and whole not in (bare, [bos, *bare]):
            raise PromptError(
                f"{self.path} adds tokens to a text: {whole[:3]}...{whole[-3:]}, expected BOS ({bos}) before it or "
                "nothing; take them out of its post_processor, or set bos of the model in the config"
            )

    @functools.cached_property
    def _codes(self) -> list[str]:
        return code_texts(self.catalog)

    def _text_of(self, item: int) -> str:
        first = self.catalog.first_code
        return "".join(self._codes[token - first] for token in self.catalog.tokens(item).tolist())

    def _numbered(self, rows: list[int]) -> list[int]:
        vocabulary = self.catalog.vocabulary
        return rows if vocabulary is None else vocabulary.tokens(rows).tolist()


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


def _joined(catalog: Catalog, items: Sequence[int], answer: Sequence[int]) -> list[int]:
    """Tokens of a prompt that is put together from pieces, and of an answer."""
    prompt = prompt_tokens(catalog, items, len(items))
    return [*prompt.tolist(), *catalog.tokens(answer).reshape(-1).tolist()]


def _probes(catalog: Catalog) -> list[tuple[list[int], list[int]]]:
    """(items, answer) pairs that show every code which the text can touch: all of the
    first level and of the last.
    """
    ends = [np.unique(catalog.codes[:, level], return_index=True)[1].tolist() for level in (0, -1)]
    every = ends[0] + ends[1]
    return [([], [0]), (every, []), *(([item], [item]) for item in every)]
