"""The five modes: how the K beams of a level are selected among the children.

`SearchConfig.mode` names a mode by a string. `selection_of` turns that name into a
`Selection`, which answers everything that decoding asks of a mode. Every selection but
`Strict` draws at random, with noise that is keyed by user and prefix (`noise`).
ALGORITHM.md section 6 has the laws.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Key

from atspeed_jax.decoding import noise, relaxed
from atspeed_jax.decoding.base import DecodeError, Mode, Prompt
from atspeed_jax.decoding.beams import LOWEST, Beams
from atspeed_jax.decoding.children import Children, best_children
from atspeed_jax.decoding.noise import Purpose
from atspeed_jax.items.trie import ItemTrie

Keys = Key[Array, " B"] | None


@runtime_checkable
class Selection(Protocol):
    """How K beams are selected, in one mode.

    mode: the name of the mode in `SearchConfig.mode`.
    draws: whether noise decides, so that `Prompt.keys` are needed.
    tests_draws: whether verification accepts or rejects what the draft drew. Otherwise
      the list is the one that the target finds alone, whatever the draft proposes.
    needs_trie_norm: whether it draws items by their probability, which is defined under
      `score_norm="trie"` alone.
    baseline: the mode in which the target alone has the same list, or the same law.
    """

    # Properties, since those of the frozen dataclasses below cannot be set.
    @property
    def mode(self) -> Mode: ...
    @property
    def draws(self) -> bool: ...
    @property
    def tests_draws(self) -> bool: ...
    @property
    def needs_trie_norm(self) -> bool: ...
    @property
    def baseline(self) -> Mode: ...

    def perturb(self, children: Children, keys: Keys, purpose: Purpose) -> Children:
        """Adds the `perturbed` score by which children are selected, if it `draws`."""
        ...

    def select(self, trie: ItemTrie, children: Children, count: int, keys: Keys) -> Beams:
        """Selects `count` children by the target's scores alone, for the next level."""
        ...

    def verify(
        self,
        target: Children,
        draft: Children | None,
        drafted: Beams | None,
        *,
        trie: ItemTrie,
        count: int,
        keys: Keys,
    ) -> Beams:
        """Selects `count` children in view of what the draft made of them.

        Args:
          target: children of the nodes of a level, with the target's scores.
          draft: the same children with the draft's scores; None if it scored none.
          drafted: nodes of the next level that the draft proposed; None if it did not.
          trie: the constraint.
          count: K.
          keys: one per user, None in a mode that does not draw.

        Returns:
          The settled beams of the next level [B, K], in trie order.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Strict:
    """The K children of the highest scores."""

    mode: Mode = "strict"
    draws: bool = False
    tests_draws: bool = False
    needs_trie_norm: bool = False
    baseline: Mode = "strict"

    def perturb(self, children, keys, purpose):
        return children

    def select(self, trie, children, count, keys):
        return best_children(trie, children, count)

    def verify(self, target, draft, drafted, *, trie, count, keys):
        return self.select(trie, target, count, keys)


@dataclasses.dataclass(frozen=True)
class Stochastic:
    """K items drawn without replacement from the model (Kool et al. 2019).

    A beam carries its perturbed score to the next level, where the noise of its
    children is conditioned on it. Draft and target see the same noise.
    """

    mode: Mode = "stochastic"
    draws: bool = True
    tests_draws: bool = False
    needs_trie_norm: bool = True
    baseline: Mode = "stochastic"

    def perturb(self, children, keys, purpose):
        return noise.conditional_on_parents(children, noise.of_children(keys, children, Purpose.BEAM))

    def select(self, trie, children, count, keys):
        return best_children(trie, self.perturb(children, keys, Purpose.TARGET), count)

    def verify(self, target, draft, drafted, *, trie, count, keys):
        return self.select(trie, target, count, keys)


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """K prefixes a level, drawn without replacement from the softmax of their scores.

    Verification accepts or rejects the draft's draws so that this law holds exactly.
    """

    mode: Mode = "relaxed"
    draws: bool = True
    tests_draws: bool = True
    needs_trie_norm: bool = False
    baseline: Mode = "relaxed"
    rule: relaxed.Rule = relaxed.exact_rule

    def perturb(self, children, keys, purpose):
        return _add_noise(children, keys, purpose)

    def select(self, trie, children, count, keys):
        return _draw(trie, self.perturb(children, keys, Purpose.TARGET), count)

    def verify(self, target, draft, drafted, *, trie, count, keys):
        if drafted is None:
            # Nothing to test: the target draws by itself, and the round ends here.
            return self.select(trie, target, count, keys)
        return relaxed.accept_draws(target, draft, drafted, trie=trie, count=count, keys=keys, rule=self.rule)


@dataclasses.dataclass(frozen=True)
class Coupled:
    """The law of `Relaxed` in fewer calls: draft and target draw with the same noise.

    So the list is the target's draw, and a draft only has to cover it.
    """

    mode: Mode = "coupled"
    draws: bool = True
    tests_draws: bool = False
    needs_trie_norm: bool = False
    baseline: Mode = "relaxed"

    def perturb(self, children, keys, purpose):
        return _add_noise(children, keys, Purpose.TARGET)

    def select(self, trie, children, count, keys):
        return _draw(trie, self.perturb(children, keys, Purpose.TARGET), count)

    def verify(self, target, draft, drafted, *, trie, count, keys):
        return self.select(trie, target, count, keys)  # the draft saw this noise


@dataclasses.dataclass(frozen=True)
class Reference(Relaxed):
    """`Relaxed` as the public reference code does it, with its bias, for comparison."""

    mode: Mode = "relaxed_reference"
    rule: relaxed.Rule = relaxed.reference_rule


# In the order in which messages and help texts name them.
SELECTIONS: tuple[Selection, ...] = (Strict(), Stochastic(), Relaxed(), Coupled(), Reference())


def selection_of(mode: str) -> Selection:
    """Returns the selection that a mode names.

    Raises:
      DecodeError: the mode does not exist.
    """
    by_mode = {selection.mode: selection for selection in SELECTIONS}
    if mode not in by_mode:
        raise DecodeError(f"mode={mode!r}: expected one of {', '.join(by_mode)}")
    return by_mode[mode]


def check_mode(mode: str, temperature: float, score_norm: str) -> None:
    """Raises DecodeError for an unknown mode, temperature or norm of that mode."""
    selection = selection_of(mode)
    if not temperature > 0 or (not selection.draws and temperature != 1):
        raise DecodeError(f"temperature={temperature} with mode={mode!r}: expected more than 0, and 1 in strict mode")
    if selection.needs_trie_norm and score_norm != "trie":
        raise DecodeError(
            f"mode={mode!r} with score_norm={score_norm!r}: it draws items by their probability, which is defined "
            "under score_norm='trie' alone"
        )


def check_keys(mode: str, prompt: Prompt) -> None:
    """Raises DecodeError for a prompt without keys in a mode that draws."""
    if selection_of(mode).draws and prompt.keys is None:
        raise DecodeError(f"mode={mode!r} draws at random: give Prompt.keys, such as noise.user_keys(seed, users)")


def _add_noise(children: Children, keys: Key[Array, " B"], purpose: Purpose) -> Children:
    # The largest K of score + Gumbel noise are K draws without replacement from the
    # softmax of the scores.
    drawn = children.total + noise.of_children(keys, children, purpose)
    return children.replace(perturbed=jnp.where(children.exists, drawn, LOWEST))


def _draw(trie: ItemTrie, children: Children, count: int) -> Beams:
    return noise.drop_noise(best_children(trie, children, count))
