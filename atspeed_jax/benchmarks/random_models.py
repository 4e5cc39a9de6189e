"""Random models, catalogs and users for benchmarks that need no training.

A draft is the first layers of its target, so that some drafted nodes are accepted and
others are not.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import BOS, Catalog
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.serving.decoders import Decoders

CODES = (91, 256, 256, 256)  # per level, as many as Beauty has
ITEMS = 12_000
# Name -> (hidden, intermediate, layers): about 4, 25 and 110 million parameters with
# the vocabulary of CODES.
SIZES = {"4M": (256, 688, 4), "25M": (512, 1376, 8), "110M": (768, 3072, 12)}


def model_and_numbers(
    about: str | None, numbers: Mapping[str, int], arguments: Sequence[str] | None
) -> tuple[str, dict[str, int]]:
    """Parses the command line of a benchmark of random models.

    Args:
      about: its docstring, whose first line is shown by --help.
      numbers: its flags beside --model, with their defaults.
      arguments: the command line; None for that of the process.

    Returns:
      The name of one of SIZES, and the numbers.
    """
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--model", default="4M", choices=list(SIZES))
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", default=default, type=int)
    given = vars(parser.parse_args(arguments))
    return given.pop("model"), given


def random_config(name: str, vocab_size: int) -> LlamaConfig:
    """Returns the config of a model whose size is named in SIZES."""
    hidden, intermediate, layers = SIZES[name]
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=layers,
        heads=hidden // 64,
        kv_heads=hidden // 64,
        head_dim=64,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        tied_embeddings=True,
        dropout=0.0,
        dtype="float32",
        remat=False,
    )


def random_params(config: LlamaConfig, seed: int) -> dict[str, Any]:
    """Returns random weights with more spread logits than an initialization has."""
    params = init_params(config, jax.random.key(seed))
    return params | {"norm": {"scale": params["norm"]["scale"] * 6.0}}


def first_layers(config: LlamaConfig, params: Mapping, layers: int) -> tuple[LlamaConfig, dict[str, Any]]:
    """Returns the model that is left of a Llama after its first layers.

    The embedding, the norm and the head are shared.
    """
    fewer = jax.tree.map(lambda leaf: leaf[:layers], params["layers"])
    return dataclasses.replace(config, layers=layers), dict(params) | {"layers": fewer}


def random_prompts(catalog: Catalog, batch: int, tokens: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the prompts of users with random histories.

    Args:
      catalog: whose items they had.
      batch: number of users.
      tokens: length of a history. As many items are taken as fit into it.
      seed: of the items.

    Returns:
      A batch as `data.batches.prompt_batches` makes it, with BOS before each history.
    """
    items = np.random.default_rng(seed).integers(0, catalog.items, (batch, tokens // catalog.length))
    ids = catalog.tokens(items).reshape(batch, -1)
    rows = np.concatenate([np.full((batch, 1), BOS, np.int32), ids], 1)
    return {"tokens": rows, "valid": np.ones(rows.shape, bool), "row": np.arange(batch)}


def random_decoders(name: str, catalog: Catalog, seed: int) -> Decoders:
    """Returns the decoders of a random target and of its first quarter as the draft."""
    config = random_config(name, catalog.vocab_size)
    params = jax.jit(random_params, static_argnums=(0, 1))(config, seed)
    trie = build_trie(catalog.id_tokens)
    prior = popularity_prior(trie, catalog.id_tokens, np.ones(len(catalog.ids)))
    draft, draft_params = first_layers(config, params, max(1, config.layers // 4))
    prefixes, first = prefixes_by_norm(catalog.id_tokens), catalog.first_code
    return Decoders(config, params, draft, draft_params, trie, prior, prefixes, first_code=first)
