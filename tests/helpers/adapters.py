"""A small Llama and an adapter of it with every part random."""

import dataclasses

import jax
import jax.numpy as jnp

from atspeed_jax.models.lora import LoraConfig, init_adapter
from bases import BASE
from numpy_llama import wide_params

MODEL = dataclasses.replace(
    BASE,
    vocab_size=13,
    hidden_size=8,
    intermediate_size=12,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=2,
    rope_theta=100.0,
    norm_eps=1e-5,
)
TIED = dataclasses.replace(MODEL, tied_embeddings=True)
LORA = LoraConfig(rank=3, alpha=6.0, dropout=0.0, targets=("q_proj", "v_proj", "down_proj"))
ITEMS = 5


def case(model=MODEL, lora=LORA, items=ITEMS):
    """(base, adapter with every part random)."""
    params = jax.tree.map(jnp.asarray, wide_params(model, seed=0))
    adapter = init_adapter(model, lora, params, items, jax.random.key(1))
    leaves, tree = jax.tree.flatten(adapter)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    random = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return params, jax.tree.unflatten(tree, random)
