"""A small catalog, two prompts, and beams of depth 2 over it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beams import (
    Beams,
)
from atspeed_jax.items.trie import TrieCapacity, build_trie

IDS = np.array(list(itertools.product((2, 3, 4), (5, 6), (7, 8, 9))))
IDS = np.delete(IDS, [1, 4, 5, 12, 13, 14], axis=0)  # so that nodes have 1, 2 and 3 children; (4, 5) is gone
CAPACITY = TrieCapacity((4, 7, 20), (3, 2, 4))
TRIE = build_trie(IDS, CAPACITY)
PROMPT = Prompt(jnp.array([[0, 0, 1], [1, 5, 7]]), jnp.array([[False, False, True], [True, True, True]]))
LEVEL_TWO = sorted({tuple(row[:2].tolist()) for row in IDS})  # 5 prefixes


def level_two(nodes, scores, valid=None):
    """Beams of depth 2, the same for two users."""
    tokens = [[*LEVEL_TWO[n], 0] for n in nodes]
    path = [[2, 3 + n, 10 + n] for n in nodes]
    one = Beams(
        jnp.array(tokens),
        jnp.array(path),
        jnp.array(scores, jnp.float32),
        jnp.array(nodes),
        jnp.array(valid if valid is not None else [True] * len(nodes)),
    )
    return jax.tree.map(lambda x: jnp.stack([x, x]), one)
