"""A small teacher's tree: ids, context, prompts, nodes by depth, beams and parameters of one model."""

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, init_params

VOCAB, LENGTH, BEAMS = 14, 3, 3
MODEL = LlamaConfig(VOCAB, 16, 32, 2, 2, 1, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)


def world():
    """(ids [U, L], context, prompt of 2 users, prefixes by depth, beams [2, 2, K], params)."""
    rng = np.random.default_rng(0)
    ids = np.unique(rng.integers(0, 4, (20, LENGTH)), axis=0) + 2 + 4 * np.arange(LENGTH)
    context = tree_context(build_trie(ids), ids)
    prompt_tokens = np.array([[0, 0, 1, 3, 8], [1, 2, 7, 11, 5]])
    prompt = Prompt(jnp.asarray(prompt_tokens, jnp.int32), jnp.asarray(prompt_tokens > 0))
    nodes = [np.unique(ids[:, :depth], axis=0) for depth in range(1, LENGTH + 1)]
    # Beams of depth 1 and 2 such that every parent is there; user 1 misses one place of depth 2.
    first = np.array([[0, 1, 2], [1, 2, 3]])
    second = np.full((2, BEAMS), -1)
    for user in range(2):
        parents = nodes[0][first[user], 0]
        allowed = [n for n, prefix in enumerate(nodes[1]) if prefix[0] in parents]
        second[user, : 3 - user] = allowed[: 3 - user]
    beams = jnp.asarray(np.stack([first, second], 1), jnp.int32)
    params = jax.tree.map(lambda x: 5 * x, init_params(MODEL, jax.random.key(0)))
    return ids, context, prompt, nodes, beams, params
