"""What a decoder takes and gives: the model contract, the prompt, the slot layout, the result.

Nothing here knows attention. A model is a hashable `StepModel` (a static jit argument) and its parameters (a traced
one); tests inject a lookup table in its place.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from atspeed_jax.shapes import Logits, RowBool, RowInt, SlotMask, Tokens

ScoreNorm = Literal["vocab", "trie"]
Mode = Literal["strict", "stochastic", "relaxed", "coupled", "relaxed_reference"]


class DecodeError(ValueError):
    """Search settings that cannot work, found before anything is compiled."""


@runtime_checkable
class StepModel(Protocol):
    """One forward pass over tokens with an explicit slot and an explicit mask.

    See ALGORITHM.md section 2.
    """

    def init_cache(self, batch: int, slots: int) -> Any: ...

    def __call__(
        self, params: Any, tokens: Tokens, positions: Tokens, slots: Tokens, mask: SlotMask, cache: Any, *, n_out: int
    ) -> tuple[Logits, Any]:
        """Writes the T tokens at their slots (slot S: nowhere), attends under the mask, returns logits of the last
        n_out tokens."""
        ...


class Prompt(struct.PyTreeNode):
    """Left-padded prompts: tokens [B, P] int32, valid [B, P] bool.

    The last column is always a real token (at least BOS). keys [B]: one random key per user (`noise.user_keys`) for the
    modes that draw, else None.
    """

    tokens: Int[Array, "B P"]
    valid: Bool[Array, "B P"]
    keys: Key[Array, " B"] | None = None

    @property
    def last_position(self) -> RowInt:
        return self.valid.sum(1) - 1


def check_keys(mode: Mode, prompt: Prompt) -> None:
    """Raises DecodeError for a prompt without keys in a mode that draws."""
    if mode != "strict" and prompt.keys is None:
        raise DecodeError(f"mode={mode!r} draws at random: give Prompt.keys, such as noise.user_keys(seed, users)")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which cache slots a level owns: node j of level l lives at offset[l] + j; the root is the last prompt slot.

    capacity: nodes of level 0..L-1. The last level needs no slots.
    """

    prompt: int
    capacity: tuple[int, ...]

    @property
    def offset(self) -> tuple[int, ...]:
        return (self.prompt - 1, *(self.prompt + sum(self.capacity[1:level]) for level in range(1, len(self.capacity))))

    @property
    def slots(self) -> int:
        return self.prompt + sum(self.capacity[1:])


class RoundOne(struct.PyTreeNode):
    """Round 1 of a speculative search at levels 1..L-1, each [B, L-1] (ALGORITHM.md section 1).

    reached: the walk came to this level. accepted: it went on, since all K beams had been drafted, or nearly
    (`SearchConfig.tolerance`). coverage: share of them that had.
    """

    reached: Bool[Array, "B M"]
    accepted: Bool[Array, "B M"]
    coverage: Float[Array, "B M"]


class Result(struct.PyTreeNode):
    """The K best (or drawn) items per user, best first; ties in lexicographic order of the ids.

    ids [B, K]: row of the catalogue's sorted distinct ids. tokens [B, K, L]; score [B, K]: log-probability; valid [B,
    K]: False marks a place nothing was found for, whose id and tokens are 0. target_calls [B]: target forwards of each
    user, the prompt's included. given_up [B]: share of probability that `SearchConfig.tolerance` gave up on the way, 0
    where the list is that of plain beam search. faulty [B]: the first level, from 1, at which a beam's score is not a
    finite number, since the target's logits that it needs were not; 0 for none (see `check_finite`). rounds []:
    forwards of the batch, as many as its slowest row needs, or more but smaller ones, where later rounds read a part of
    it (`SearchConfig.row_share`). round_one: None for plain beam search. perturbed [B, K]: in stochastic mode the
    perturbed log-probability, by which the list is sorted; else None.
    """

    ids: Int[Array, "B K"]
    tokens: Int[Array, "B K L"]
    score: Float[Array, "B K"]
    valid: Bool[Array, "B K"]
    target_calls: RowInt
    given_up: Float[Array, " B"]
    faulty: RowInt
    rounds: Int[Array, ""]
    round_one: RoundOne | None
    perturbed: Float[Array, "B K"] | None = None


def check_finite(faulty: np.ndarray, users: np.ndarray) -> None:
    """Raises DecodeError naming the first of the users [B] and the level where `Result.faulty` [B] is not 0."""
    for user, level in zip(users.tolist(), faulty.tolist(), strict=True):
        if level:
            raise DecodeError(
                f"user {user}: scores of level {level} are not finite numbers, so the target's logits were NaN or "
                "infinite there; check its parameters, or the type it computes in"
            )


def select_rows(condition: RowBool, then, otherwise):
    """Row-wise `where` over two equal pytrees whose arrays start with the batch dimension."""

    def pick(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, then, otherwise)
