"""A pair of random models, as it is packed: 24 ids of three codes, 12 users, in the sizes of a toy."""

import dataclasses

import numpy as np

from atspeed_jax.benchmarks.decode_cells import DecodeSuite
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.items.catalog import BOS, PAD, Catalog
from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.models.wide_shapes import Shape
from atspeed_jax.serving.settings import DecodeConfig
from numpy_llama import wide_params

USERS, HISTORY = 12, 3
LARGER = Shape(12, 16, 2, 16, 16, 8)
SIZES = {"beams": (2,), "batches": (1,), "prompts": (9,), "users": 3, "repeats": 2, "samples": 50}


def tiny_pair() -> Pair:
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(rng.integers(0, 4, (24, 3)))
    target = LlamaConfig(catalog.vocab_size, 8, 12, 1, 2, 2, 4, 1e4, 1e-6, False, 0.0, "float32", False)
    draft = dataclasses.replace(target, heads=1, kv_heads=1)
    tokens = np.full((USERS, 1 + 3 * HISTORY), PAD, np.int32)
    for user in range(USERS):
        items = rng.integers(0, catalog.items, user % HISTORY + 1)
        row = np.concatenate([[BOS], catalog.tokens(items).reshape(-1)])
        tokens[user, len(tokens[0]) - len(row) :] = row
    return Pair(
        target=target,
        target_params=wide_params(target, 1),
        draft=draft,
        draft_params=wide_params(draft, 2),
        id_tokens=np.asarray(catalog.id_tokens),
        id_counts=np.arange(len(catalog.ids), dtype=np.float64),
        users=100 + np.arange(USERS),
        tokens=tokens,
        decode=DecodeConfig(widths=(3, 4), gamma=2, score_norm="vocab"),
    )


def suite_with(**fields) -> DecodeSuite:
    """A suite of few users, on the pair and on a shape "larger" that a test adds to SHAPES."""
    return DecodeSuite(**{"shapes": ("pair", "larger"), **SIZES, **fields})
