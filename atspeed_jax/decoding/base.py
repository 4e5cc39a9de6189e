"""What a decoder takes and gives: the model contract, prompt, slot layout and result.

Nothing here knows attention. A model is a hashable `StepModel`, a static jit argument,
and its parameters, a traced one. Tests inject a lookup table as the model.
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

from atspeed_jax.shapes import Logits, RowBool, RowInt, StepInput

ScoreNorm = Literal["vocab", "trie"]
Mode = Literal["strict", "stochastic", "relaxed", "coupled", "relaxed_reference"]


class DecodeError(ValueError):
    """Search settings that cannot work, found before anything is compiled."""


@runtime_checkable
class StepModel(Protocol):
    """One forward pass over tokens with an explicit slot and an explicit mask.

    See ALGORITHM.md section 2. A model may leave out the logits of the first tokens of
    the vocabulary. Such a model has an attribute `first_token`, the token of its first
    logit (`first_token`).
    """

    def init_cache(self, batch: int, slots: int) -> Any: ...

    def __call__(self, params: Any, inputs: StepInput, cache: Any, *, n_out: int) -> tuple[Logits, Any]:
        """Reads T tokens of each user.

        Args:
          params: of the model.
          inputs: tokens, positions, slots and mask.
          cache: of `init_cache`, with what earlier calls wrote.
          n_out: static. How many tokens, the last ones, get logits: those of a whole
            prompt would not fit in memory.

        Returns:
          (logits [B, n_out, V], the cache with the tokens in it).
        """
        ...


def first_token(model: StepModel, norm: ScoreNorm) -> int:
    """Returns the token of a model's first logit, which is 0 for most models.

    Raises:
      DecodeError: a norm over the whole vocabulary needs the logits of all tokens.
    """
    first = getattr(model, "first_token", 0)
    if first and norm == "vocab":
        raise DecodeError(
            f"score_norm='vocab' with a model that leaves out the logits of the tokens below {first}: expected the "
            "logits of the whole vocabulary; take a model with first_token=0, or score_norm='trie'"
        )
    return first


class SharedHead(struct.PyTreeNode):
    """What all prompts of a search begin with, read before the search.

    tokens [H].
    target: cache of one user with H slots that holds the tokens (`shared_head`).
    draft: the same of the drafter; () for one without a cache.
    """

    tokens: Int[Array | np.ndarray, " H"]
    target: Any
    draft: Any

    @property
    def length(self) -> int:
        """H, tokens of the head."""
        return self.tokens.shape[0]


class Prompt(struct.PyTreeNode):
    """Left-padded prompts of B users.

    tokens [B, P]: the last column is always a real token (at least BOS).
    valid [B, P]: False for padding.
    keys [B]: one random key per user (`noise.user_keys`) for the modes that draw, or
      None.
    head: the first tokens of every prompt, if a search need not read them again.
    """

    tokens: Int[Array, "B P"]
    valid: Bool[Array, "B P"]
    keys: Key[Array, " B"] | None = None
    head: SharedHead | None = None

    @property
    def last_position(self) -> RowInt:
        return self.valid.sum(1) - 1

    @property
    def slots(self) -> Bool[Array, "B P"]:
        """Marks the prompt slots that hold a token: slot t holds token t of a row.

        A shared head has slots 0..H-1 of every row. So padding lies behind the head, and
        the tokens of the head that a row has behind its padding have no slot.
        """
        if self.head is None:
            return self.valid
        read = self.head.length
        return (jnp.arange(self.valid.shape[1]) < read) | (jnp.cumsum(self.valid, 1) > read)

    @property
    def head_length(self) -> int:
        """H, tokens of the shared head; 0 without one."""
        return 0 if self.head is None else self.head.length

    @property
    def first_slot(self) -> RowInt:
        """The first slot behind padding: the slots from it to P hold the row's last tokens."""
        return self.valid.shape[1] + self.head_length - self.valid.sum(1, dtype=jnp.int32)

    def take_rows(self, rows: RowInt) -> Prompt:
        """Returns the prompts of the users `rows` alone."""
        return jax.tree.map(lambda x, own: x[rows] if own else x, self, self.per_user())

    def per_user(self) -> Prompt:
        """Returns a pytree like this one: True for each array with a row per user."""
        marks = jax.tree.map(lambda _: True, self)
        return marks.replace(head=jax.tree.map(lambda _: False, self.head))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which cache slots a level owns: node j of level l has slot offset[l] + j.

    The root has the last prompt slot. Level L needs no slots, since it is never fed.

    prompt: P, slots of the prompt.
    capacity: nodes of each level 0..L-1.
    """

    prompt: int
    capacity: tuple[int, ...]

    @property
    def offset(self) -> tuple[int, ...]:
        # The root has a prompt slot, so level 1 begins right behind the prompt.
        return (self.prompt - 1, *(self.prompt + sum(self.capacity[1:level]) for level in range(1, len(self.capacity))))

    @property
    def slots(self) -> int:
        """S, slots of the cache."""
        return self.prompt + sum(self.capacity[1:])


class RoundOne(struct.PyTreeNode):
    """What round 1 of a speculative search did at levels 1..L-1, each [B, L-1].

    reached: the walk came to this level.
    accepted: the walk went on, since all K beams were drafted, or nearly all
      (`SearchConfig.tolerance`).
    coverage: share of the K beams that were drafted (ALGORITHM.md section 1).
    """

    reached: Bool[Array, "B M"]
    accepted: Bool[Array, "B M"]
    coverage: Float[Array, "B M"]


class Result(struct.PyTreeNode):
    """The K best (or drawn) items per user, best first; equals in lexicographic order.

    ids [B, K]: row of the catalog's sorted distinct ids.
    tokens [B, K, L].
    score [B, K]: log-probability.
    valid [B, K]: False for a place without an item, whose id and tokens are 0.
    target_calls [B]: target forwards of each user, the one of the prompt included.
    given_up [B]: share of probability that `SearchConfig.tolerance` gave up on the way;
      0 where the list is that of plain beam search.
    faulty [B]: first level, from 1, at which a beam's score is not finite because the
      target's logits were not; 0 for none (`check_finite`).
    rounds []: forwards of the batch. As many as its slowest row needs, or more but
      smaller ones where later rounds read a part of the batch
      (`SearchConfig.row_share`).
    round_one: None for plain beam search.
    perturbed [B, K]: in stochastic mode the perturbed log-probability, by which the
      list is sorted; in the other modes that draw the score again; None in strict mode.
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
    """Raises DecodeError for the first user with scores that are not finite.

    Args:
      faulty: [B] `Result.faulty`.
      users: [B] names for the message.
    """
    for user, level in zip(users.tolist(), faulty.tolist(), strict=True):
        if level:
            raise DecodeError(
                f"user {user}: scores of level {level} are not finite numbers, so the target's logits were NaN or "
                "infinite there; check its parameters, or the type it computes in"
            )


def select_rows(condition: RowBool, then, otherwise):
    """Selects row by row between equal pytrees of arrays [B, ...]; condition: [B]."""

    # Arrays of a level differ in rank: the condition is broadcast behind the batch
    # axis.
    def pick(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, then, otherwise)
