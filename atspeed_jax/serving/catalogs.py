"""The catalog as pretrained models read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from atspeed_jax.data.instructions import PromptConfig, read_instruction, same_instruction
from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.placement import padding_apart, place_codes
from atspeed_jax.models.pretrained import Pretrained


def catalog_for(models: Collection[Pretrained], catalog: Catalog, prompt: PromptConfig) -> Catalog:
    """Gives a catalog the tokens of pretrained models, and the text around the items.

    Draft and target read the same tokens.

    Args:
      models: one, or several of one tokenizer. Their embeddings may differ in rows
        behind the tokenizer's tokens.
      catalog: whose codes are not placed yet.
      prompt: what the models read of a user.

    Returns:
      The catalog, whose prompts do not hold PAD.

    Raises:
      TokenizerError: a tokenizer does not fit the codes or the model.
      PromptError: a tokenizer does not make the text.
      ValueError: the models differ in what they read.
    """
    rows, placed, read = max(one.model.vocab_size for one in models), {}, {}
    for one in models:
        directory = one.config.directory
        placed[directory] = place_codes(catalog, Path(directory), rows, one.bos)
        if one.config.bos is not None:
            placed[directory] = dataclasses.replace(placed[directory], begins=True)
        read[directory] = read_instruction(Path(directory), placed[directory], prompt)
    _check_same(placed)
    found = next(iter(placed.values()))
    if None not in read.values():
        found = dataclasses.replace(found, instruction=same_instruction(read))
    return padding_apart(found)


def check_positions(pretrained: Iterable[Pretrained], catalog: Catalog, history: int) -> None:
    """Checks that pretrained models have enough positions.

    Raises:
      ValueError: a prompt of `history` items and the codes of the next item are longer
        than a model was made for.
    """
    longest = prompt_width(catalog, history) + catalog.length
    text = "shorten its template or separator, or " if catalog.instruction else ""
    for one in pretrained:
        if one.positions is not None and longest > one.positions:
            raise ValueError(
                f"a prompt of history={history} items and the next one has {longest} tokens, but "
                f"{one.config.directory} was made for {one.positions} (max_position_embeddings): {text}lower history"
            )


def _check_same(placed: dict[str, Catalog]) -> None:
    """Raises ValueError for models that read other tokens."""
    (first, catalog), *others = placed.items()
    for name, other in others:
        found = {first: _described(catalog), name: _described(other)}
        same = found[first] == found[name] and (
            catalog.vocabulary is None
            or (other.vocabulary is not None and np.array_equal(catalog.vocabulary.rows, other.vocabulary.rows))
        )
        if not same:
            texts = "; ".join(f"{name} has {text}" for name, text in found.items())
            texts += "" if found[first] != found[name] else "; they give a code different tokens"
            raise ValueError(f"draft and target must share one vocabulary, but {texts}: take models of one tokenizer")


def _described(catalog: Catalog) -> str:
    known = "codes" if catalog.vocabulary is not None and catalog.vocabulary.trained else "new codes"
    begins = "which begins prompts" if catalog.begins else "which does not begin prompts"
    return f"{known} behind {catalog.first_code} tokens, and BOS {catalog.bos}, {begins}"
