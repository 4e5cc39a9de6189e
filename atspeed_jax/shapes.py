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

    A node of the tree attends to the prompt's slots and to the slots on its path. The
    path is a short list, so the mask of a wide tree stays small.

    Attributes:
      prompt: [B, T, P], which of the first P slots the token attends to.
      path: [B, T, A], the slots behind the prompt that the token attends to, each once;
        negative entries name no slot.
    """

    prompt: Bool[Array, "B T P"]
    path: Int[Array, "B T A"]

    @classmethod
    def causal(cls, valid: Bool[Array, "B T"]) -> SlotMask:
        """Builds the causal mask of left-padded sequences, where slot t is token t.

        Args:
          valid: [B, T], False for padding.

        Returns:
          A mask with T prompt slots and an empty path (A = 0).
        """
        causal = jnp.tril(jnp.ones((valid.shape[1],) * 2, bool)) & valid[:, None]
        return cls(causal, jnp.zeros((*valid.shape, 0), jnp.int32))

    def sees_something(self) -> Bool[Array, "B T"]:
        """Marks the tokens [B, T] that attend to any slot.

        Padding attends to none. A real token attends at least to itself.
        """
        return self.prompt.any(-1) | (self.path >= 0).any(-1)

    def dense(self, slots: int) -> Bool[Array, "B T S"]:
        """Converts the mask to one bool per slot of a cache with `slots` slots."""
        behind = (self.path[..., None] == jnp.arange(slots)).any(-2)
        return behind | jnp.pad(self.prompt, ((0, 0), (0, 0), (0, slots - self.prompt.shape[-1])))


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
