"""The notation every file uses, and the array types spelled with it.

B  users in a batch            L  codes of an item id (levels)     T  tokens of one model call P  prompt length, left-
padded  K  beams kept per level             S  cache slots: prompt, then tree N  nodes of one level          W  drafted
nodes of a level         R  row width: most children a node may have V  vocabulary                  D  model width
H  attention heads

A *prefix* of l codes is a node of depth l; the root has depth 0. "Level l" speaks of the nodes of depth l: level 0 is
the root (the last prompt token), levels 1..L-1 are fed to a model, level L is never fed.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

Tokens = Int[Array, "B T"]
Logits = Float[Array, "B N V"]
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
    """Which cache slots each of T tokens attends to, in two parts: a node of a tree sees the prompt and, of the many
    slots behind it, the few on its own path.

    prompt [B, T, P]: the first P slots that are seen. path [B, T, A]: the other ones, each once, negative for none.
    """

    prompt: Bool[Array, "B T P"]
    path: Int[Array, "B T A"]

    @classmethod
    def causal(cls, valid: Bool[Array, "B T"]) -> SlotMask:
        """What the tokens of whole left-padded sequences see, slot t being token t; valid marks the real ones."""
        causal = jnp.tril(jnp.ones((valid.shape[1],) * 2, bool)) & valid[:, None]
        return cls(causal, jnp.zeros((*valid.shape, 0), jnp.int32))

    def sees_something(self) -> Bool[Array, "B T"]:
        """False for padding: a real token sees at least itself."""
        return self.prompt.any(-1) | (self.path >= 0).any(-1)

    def dense(self, slots: int) -> Bool[Array, "B T S"]:
        """The same as one bool per slot of a cache of `slots`."""
        behind = (self.path[..., None] == jnp.arange(slots)).any(-2)
        return behind | jnp.pad(self.prompt, ((0, 0), (0, 0), (0, slots - self.prompt.shape[-1])))
