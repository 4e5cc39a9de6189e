"""Small Hugging Face directories, written without transformers, for runs to begin with; a small model to export."""

import dataclasses
import json

import numpy as np
from tokenizers.processors import TemplateProcessing

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.hf_config import hf_config
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.weights import save_weights
from numpy_llama import wide_params
from words import WORDS, words_tokenizer

BOS = 2
BASE = LlamaConfig(
    vocab_size=len(WORDS),
    hidden_size=16,
    intermediate_size=16,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=8,
    rope_theta=10_000.0,
    norm_eps=1e-6,
    tied_embeddings=False,
    dropout=0.0,
    dtype="float32",
    remat=False,
)
# What is exported: a catalog and a model of its codes.
CATALOG = Catalog.from_codes(np.array([[0, 2, 1], [1, 0, 0], [1, 3, 2]]))
CONFIG = dataclasses.replace(
    BASE,
    vocab_size=CATALOG.vocab_size,
    hidden_size=8,
    intermediate_size=12,
    layers=2,
    head_dim=4,
    rope_theta=100.0,
    norm_eps=1e-5,
    dropout=0.1,
)


def write_base(directory, config=BASE, seed=0, words=WORDS, **fields):
    """-> its parameters. words: of its tokenizer, none for none. fields: of config.json, to be changed."""
    directory.mkdir(parents=True)
    params = wide_params(config, seed)
    save_weights(directory, config, params)
    own = hf_config(config, dtype="float32", max_positions=64, bos=BOS, eos=None, pad=0)
    (directory / "config.json").write_text(json.dumps(own | fields))
    if words:
        tokenizer = words_tokenizer(words)
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
        tokenizer.save(str(directory / "tokenizer.json"))
    return params
