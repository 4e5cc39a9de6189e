"""The notation that every file uses, and the array types spelled with it.

    A  slots of a token's path: one per level below the root
    B  users in a batch
    D  model width
    H  attention heads
    K  beams kept per level
    L  codes of an item id, which is the number of levels
    M  any other number of things, which the docstring names
    N  nodes of one level
    P  prompt length; shorter prompts are padded on the left
    R  row width: the most children that a node of a level may have
    S  cache slots: those of the prompt, then those of the tree
    T  tokens of one model call
    V  vocabulary
    W  drafted nodes of a level
    X  ids in a user's list of excluded or allowed ids

A *prefix* of l codes is a trie node of depth l; the root has depth 0.
"Level l" means the nodes of depth l. Level 0 is the root, which the last prompt token
stands for. Levels 1 to L-1 are fed to a model; level L never is.
A level is *shallower* than another if its number is smaller, *deeper* if it is larger.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

Tokens = Int[Array, "B T"]
Logits = Float[Array, "B N V"]
LevelLogits = Float[Array, "B _ V"]  # in a list of levels, which differ in N
NodeInt = Int[Array, "B N"]
NodeFloat = Float[Array, "B N"]
NodeBool = Bool[Array, "B N"]
NodeLevels = Int[Array, "B N L"]
ChildInt = Int[Array, "B N R"]
ChildFloat = Float[Array, "B N R"]
ChildBool = Bool[Array, "B N R"]
RowInt = Int[Array, "B"]
RowBool = Bool[Array, "B"]


class SlotMask(struct.PyTreeNode):
    """Which cache slots each of T tokens attends to, in two parts.

    A token attends to a range of the prompt's slots, and a node of the tree to the slots
    on its path too. Neither part has an entry per pair of tokens: the mask of a long
    prompt and the mask of a wide tree stay small.

    Attributes:
      begin: [B, T], first slot of the range.
      end: [B, T], the slot behind the range; a token whose range is empty attends to no
        slot of the prompt.
      path: [B, T, A], the slots behind the prompt that the token attends to, each once;
        negative entries name no slot.
      width: static. P, slots of the prompt.
      head: static. A token whose range is not empty attends to the first slots too, so
        many of them.
      made: [B, T, P], what `prompt` gives, if it was made before (`make`).
    """

    begin: Int[Array, "B T"]
    end: Int[Array, "B T"]
    path: Int[Array, "B T A"]
    width: int = struct.field(pytree_node=False)
    head: int = struct.field(pytree_node=False, default=0)
    made: Bool[Array, "B T P"] | None = None

    @classmethod
    def causal(cls, valid: Bool[Array, "B T"]) -> SlotMask:
        """Builds the causal mask of left-padded sequences, where slot t is token t.

        Args:
          valid: [B, T], False for padding.

        Returns:
          A mask with T prompt slots and an empty path (A = 0).
        """
        width = valid.shape[1]
        begin = jnp.broadcast_to(width - valid.sum(1, dtype=jnp.int32)[:, None], valid.shape)
        end = jnp.broadcast_to(jnp.arange(1, width + 1, dtype=jnp.int32), valid.shape)
        return cls(begin, end, jnp.zeros((*valid.shape, 0), jnp.int32), width)

    @property
    def prompt(self) -> Bool[Array, "B T P"]:
        """Marks the slots of the prompt that each token attends to."""
        if self.made is not None:
            return self.made
        slots = jnp.arange(self.width, dtype=jnp.int32)
        begin, end = self.begin[..., None], self.end[..., None]
        seen = (begin <= slots) & (slots < end)
        return seen | ((slots < self.head) & (begin < end)) if self.head else seen

    def make(self) -> SlotMask:
        """Returns the same mask, with an entry per pair of tokens made once for all layers."""
        return self.replace(made=self.prompt)

    def sees_something(self) -> Bool[Array, "B T"]:
        """Marks the tokens [B, T] that attend to any slot.

        Padding attends to none. A real token attends at least to itself.
        """
        return (self.begin < self.end) | (self.path >= 0).any(-1)

    def dense(self, slots: int) -> Bool[Array, "B T S"]:
        """Converts the mask to one bool per slot of a cache with `slots` slots."""
        behind = (self.path[..., None] == jnp.arange(slots)).any(-2)
        return behind | jnp.pad(self.prompt, ((0, 0), (0, 0), (0, slots - self.width)))


class StepInput(struct.PyTreeNode):
    """What one model call reads of B users: T tokens of each.

    Attributes:
      tokens: [B, T].
      positions: [B, T], 0 for the first real token of a row.
      slots: [B, T] where the cache keeps each token; slot S means nowhere. A model
        without a cache keeps token t in slot t.
      mask: the slots that each token attends to.
      first_slot: static. Where token t of every row is kept in slot first_slot + t or
        nowhere, that number: a range is written faster than scattered slots. None
        promises nothing.
    """

    tokens: Tokens
    positions: Tokens
    slots: Tokens
    mask: SlotMask
    first_slot: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def causal(cls, tokens: Tokens, valid: Bool[Array, "B T"]) -> StepInput:
        """Reads left-padded sequences under the causal mask, token t in slot t.

        Args:
          tokens: [B, T].
          valid: [B, T], False for padding.
        """
        positions = jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)
        slots = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        return cls(tokens, positions, slots, SlotMask.causal(valid), first_slot=0)
