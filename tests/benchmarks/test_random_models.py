"""Random models, catalogs and users for benchmarks."""

import numpy as np

from atspeed_jax.benchmarks import random_models
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.llama import LlamaConfig


def test_a_shorter_model_is_the_first_layers():
    config = random_models.random_config("4M", 30)
    assert isinstance(config, LlamaConfig)
    assert config.heads * config.head_dim == config.hidden_size
    params = {"embedding": np.ones(3), "layers": {"a": np.arange(8).reshape(4, 2)}}
    fewer, own = random_models.first_layers(config, params, 2)
    assert fewer.layers == 2
    assert own["layers"]["a"].tolist() == [[0, 1], [2, 3]]
    assert own["embedding"] is params["embedding"]


def test_prompts_fill_the_tokens():
    catalog = Catalog.random(random_models.ITEMS, random_models.CODES)
    batch = random_models.random_prompts(catalog, 3, 80, 0)
    assert batch["tokens"].shape == (3, 81)
    assert batch["valid"].all()
    assert (batch["tokens"][:, 0] == 1).all()
    ids = {tuple(row) for row in catalog.id_tokens.tolist()}
    assert all(tuple(row) in ids for row in batch["tokens"][:, 1:].reshape(-1, 4).tolist())
