"""Hugging Face directories whose tokenizer knows the codes of an index, as models for this task come."""

import dataclasses
import json

import numpy as np
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from bases import BASE, BOS, write_base
from hf import random_llama
from words import WORDS, words_tokenizer

ITEMS, PADDING = 60, 5
CODES = np.stack(np.unravel_index(np.random.default_rng(0).permutation(12**3)[:ITEMS], (12,) * 3), 1).tolist()
INDEX = {str(n): [f"<{level}_{code}>" for level, code in zip("abc", CODES[n], strict=True)] for n in range(ITEMS)}
# Codes that items have, in the order of their texts: <a_10> before <a_2>.
TEXTS = sorted({text for codes in INDEX.values() for text in codes})


def write_index(path):
    path.write_text(json.dumps(INDEX))
    return path


def known_tokenizer(bos: bool, texts=TEXTS):
    tokenizer = words_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


def write_known(directory, *, bos=False, padding=PADDING, seed=0, texts=TEXTS, **sizes):
    """-> config and parameters in the order of the tokenizer, with rows of padding behind it."""
    config = dataclasses.replace(BASE, vocab_size=len(WORDS) + len(texts) + padding, hidden_size=24, **sizes)
    params = write_base(directory, config, seed, words=(), max_position_embeddings=256)
    known_tokenizer(bos, texts).save(str(directory / "tokenizer.json"))
    return config, params


def write_known_by_transformers(directory, **fields):
    """A random model of these fields of config.json, which needs torch, with the tokenizer of `write_known`."""
    random_llama(vocab_size=len(WORDS) + len(TEXTS) + PADDING, **fields).save_pretrained(directory)
    known_tokenizer(bos=False).save(str(directory / "tokenizer.json"))


def texts_of(catalog):
    """The codes that the items of a catalog have, in the order of their texts."""
    patterns = zip("abc", catalog.codes.T, strict=True)
    return sorted({f"<{level}_{code}>" for level, codes in patterns for code in codes.tolist()})


def rows_of(items):
    """The tokenizer's tokens of items, one after the other."""
    return [len(WORDS) + TEXTS.index(text) for item in items for text in INDEX[str(item)]]
