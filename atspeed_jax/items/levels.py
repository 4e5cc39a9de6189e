"""The constraint of the paper: any known code of a level may follow any prefix.

So lists may hold ids of no item; `Trie.find` says which ids exist.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Int

from atspeed_jax.items.trie import Trie, TrieError
from atspeed_jax.shapes import ChildBool, ChildInt, NodeInt, RowInt


class LevelTrie(struct.PyTreeNode):
    """Every sequence of known codes (an `ItemTrie`).

    A node of depth L is the place of its last code alone: whole ids may be too many to
    be numbered by int32.

    Attributes:
      code: code[l] holds the tokens of level l, ascending.
    """

    code: tuple[Array, ...]

    @property
    def length(self) -> int:
        return len(self.code)

    @property
    def row_width(self) -> tuple[int, ...]:
        return tuple(code.shape[0] for code in self.code)

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """Reads the children of nodes; every child exists."""
        width = self.row_width[level]
        first = node * width if level < self.length - 1 else jnp.zeros_like(node)
        edge = first[..., None] + jnp.arange(width, dtype=jnp.int32)
        return edge, jnp.ones(edge.shape, bool)

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns the token on each edge."""
        return self.code[level][edge % self.row_width[level]]

    def ids_below(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Returns how many ids begin with each node, at most the largest int32."""
        return jnp.full_like(node, min(math.prod(self.row_width[level:]), np.iinfo(np.int32).max))

    def take_rows(self, rows: RowInt) -> LevelTrie:
        """Returns the same trie, which all users share."""
        return self

    def per_user(self) -> LevelTrie:
        """Marks no array: none has a row per user."""
        return jax.tree.map(lambda _: False, self)


def level_trie(trie: Trie) -> LevelTrie:
    """Makes the constraint of the codes that occur at each level of a trie.

    Raises:
      TrieError: prefixes of depth L - 1 are too many to be numbered by int32.
    """
    codes = []
    for start, token in zip(trie.row_start, trie.token, strict=True):
        codes.append(np.unique(np.asarray(token)[: int(start[-1])]))
    sizes = tuple(map(len, codes))
    if math.prod(sizes[:-1]) > np.iinfo(np.int32).max:
        raise TrieError(f"levels of {sizes} codes have more prefixes than int32 can number; search the exact trie")
    return LevelTrie(tuple(map(jnp.asarray, codes)))
