"""The paper's own constraint: any known code of a level may follow any prefix, so lists may hold ids of no item.

A decoder reads a `LevelTrie` as it reads a `Trie`. `Trie.find` says which of the ids it found exist.
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
    """Every sequence of known codes. code[l]: tokens of level l, ascending.

    Nodes of depth l < L are numbered in lexicographic order of their prefixes; a node of depth L is the place of its
    last code alone, since whole ids may be more than there are integers.
    """

    code: tuple[Array, ...]

    @property
    def length(self) -> int:
        return len(self.code)

    @property
    def row_width(self) -> tuple[int, ...]:
        return tuple(code.shape[0] for code in self.code)

    def edges(self, level: int, node: NodeInt) -> tuple[ChildInt, ChildBool]:
        """As `Trie.edges`; every child exists."""
        width = self.row_width[level]
        first = node * width if level < self.length - 1 else jnp.zeros_like(node)
        edge = first[..., None] + jnp.arange(width, dtype=jnp.int32)
        return edge, jnp.ones(edge.shape, bool)

    def child_token(self, level: int, edge: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """As `Trie.child_token`."""
        return self.code[level][edge % self.row_width[level]]

    def ids_below(self, level: int, node: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """As `Trie.ids_below`, but no more than an int32 can tell."""
        return jnp.full_like(node, min(math.prod(self.row_width[level:]), np.iinfo(np.int32).max))

    def take_rows(self, rows: RowInt) -> LevelTrie:
        """As `Trie.take_rows`."""
        return self

    def per_user(self) -> LevelTrie:
        """As `Trie.per_user`."""
        return jax.tree.map(lambda _: False, self)


def level_trie(trie: Trie) -> LevelTrie:
    """The codes that occur at each level of a trie.

    Raises TrieError if prefixes of depth L - 1 are too many to be numbered.
    """
    codes = []
    for start, token in zip(trie.row_start, trie.token, strict=True):
        codes.append(np.unique(np.asarray(token)[: int(start[-1])]))
    sizes = tuple(map(len, codes))
    if math.prod(sizes[:-1]) > np.iinfo(np.int32).max:
        raise TrieError(f"levels of {sizes} codes have more prefixes than int32 can number; search the exact trie")
    return LevelTrie(tuple(map(jnp.asarray, codes)))
