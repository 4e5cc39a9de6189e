"""What one decode is given, bundled, since every step of a round reads it."""

from __future__ import annotations

from flax import struct
from jax import Array
from jaxtyping import Key

from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.selection import Selection, selection_of
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import RowInt


class Search(struct.PyTreeNode):
    """A speculative search: its constraint, users, slots and settings.

    No round changes any of it. Layout and settings are static.
    """

    trie: ItemTrie
    prompt: Prompt
    # Static, since they shape the program: each level has its widths and slots.
    layout: Layout = struct.field(pytree_node=False)
    config: SearchConfig = struct.field(pytree_node=False)

    @classmethod
    def of(cls, trie: ItemTrie, prompt: Prompt, config: SearchConfig) -> Search:
        """Lays out the slots of a search.

        A level has max(K, W_l) slots: a row puts K settled beams or W_l drafted nodes
        there.

        Raises:
          DecodeError: `config` is not resolved for ids of this length.
        """
        widths = config.resolved_widths(trie.length)
        layout = Layout(prompt.tokens.shape[1], (1, *(max(config.beams, w) for w in widths)))
        return cls(trie, prompt, layout, config)

    @property
    def batch(self) -> int:
        """B, users."""
        return self.prompt.tokens.shape[0]

    @property
    def length(self) -> int:
        """L, codes of an id."""
        return self.trie.length

    @property
    def widths(self) -> tuple[int, ...]:
        """W_1..W_{L-1}, drafted nodes of each level."""
        return self.config.resolved_widths(self.length)

    @property
    def keys(self) -> Key[Array, " B"] | None:
        return self.prompt.keys

    @property
    def selection(self) -> Selection:
        return selection_of(self.config.mode)

    def take_rows(self, rows: RowInt) -> Search:
        """Returns the search of the users `rows` of the batch alone."""
        return self.replace(
            trie=self.trie.take_rows(rows),
            prompt=self.prompt.take_rows(rows),
        )
