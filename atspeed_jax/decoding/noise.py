"""Randomness of the modes that draw: a value depends on the user, the code prefix and its purpose, on nothing else.

Not on slot, batch, round, drafter or catalogue: draft and target see the same noise, a user drawn again with the same
key gets the same list, and a catalogue with other items leaves the noise of the remaining prefixes alone.
"""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Key

from atspeed_jax.decoding.base import Mode
from atspeed_jax.decoding.beams import LOWEST, Beams
from atspeed_jax.decoding.children import Children, best_children
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import ChildFloat, NodeFloat, NodeLevels


class Purpose(enum.IntEnum):
    """What a prefix's noise is for; two purposes are independent."""

    BEAM = 0  # stochastic beam search, draft and target alike
    DRAFT = 1  # the draft's draws that relaxed verification tests
    ACCEPT = 2  # the acceptance test of a draw
    RESIDUAL = 3  # the first draw after a rejection
    TARGET = 4  # the target's own draws, and in coupled mode the draft's


def user_keys(seed: int, users: Int[Array, " B"]) -> Key[Array, " B"]:
    """One key per user number, for `Prompt.keys`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(users, jnp.uint32))


def of_nodes(keys: Key[Array, " B"], tokens: NodeLevels, depth: int, purpose: Purpose) -> NodeFloat:
    """Uniform noise in [0, 1) of prefixes tokens[..., :depth]."""
    return jnp.vectorize(jax.random.uniform)(_prefix_keys(keys, tokens, depth, purpose))


def of_children(keys: Key[Array, " B"], beams: Beams, children: Children, level: int, purpose: Purpose) -> ChildFloat:
    """Standard Gumbel noise of the children of nodes of `level`."""
    parents = _prefix_keys(keys, beams.tokens, level, purpose)
    return jnp.vectorize(jax.random.gumbel)(_fold_in(parents[..., None], children.token))


def _prefix_keys(keys, tokens, depth, purpose):
    """[B, N] keys: user, purpose, then one code after another."""
    batch, nodes, _ = tokens.shape
    keys = jnp.broadcast_to(_fold_in(keys, jnp.full(keys.shape, int(purpose)))[:, None], (batch, nodes))
    for level in range(depth):
        keys = _fold_in(keys, tokens[..., level])
    return keys


def _fold_in(keys, numbers):
    return jnp.vectorize(jax.random.fold_in)(keys, numbers)


def perturb(
    mode: Mode, purpose: Purpose, keys: Key[Array, " B"] | None, level: int, beams: Beams, children: Children
) -> Children:
    """Children with `perturbed`, by which the mode chooses among them.

    strict: none, the score decides. stochastic: the noise of `BEAM`, conditioned on the parents. relaxed: score plus
    the noise of `purpose`; the largest of these are draws without replacement from the softmax of the scores. coupled:
    that with the noise of `TARGET`, whatever it is for.
    """
    if mode == "strict":
        return children
    if mode == "stochastic":
        return _conditional(beams, children, of_children(keys, beams, children, level, Purpose.BEAM))
    if mode == "coupled":
        purpose = Purpose.TARGET
    drawn = children.total(beams) + of_children(keys, beams, children, level, purpose)
    return children.replace(perturbed=jnp.where(children.exists, drawn, LOWEST))


def settle(
    mode: Mode,
    keys: Key[Array, " B"] | None,
    trie: ItemTrie,
    level: int,
    beams: Beams,
    children: Children,
    count: int,
) -> Beams:
    """What the target alone keeps of the children of its beams: the best, or its own draw."""
    found = best_children(trie, level, beams, perturb(mode, Purpose.TARGET, keys, level, beams, children), count)
    return found if mode in ("strict", "stochastic") else forget(found)


def forget(beams: Beams) -> Beams:
    """Beams whose draw is over: but in stochastic mode the next level starts from the score, and the list is sorted by
    it."""
    return beams.replace(perturbed=beams.score)


def _conditional(beams: Beams, children: Children, noise: ChildFloat) -> Children:
    """Gumbels of the children given that their maximum is the parent's own (Kool et al. 2019, section 4.1 and appendix
    B.3, whose two cases of a stable log are one `logaddexp` here)."""
    free = jnp.where(children.exists, children.total(beams) + noise, LOWEST)
    top = free.max(-1, keepdims=True)
    below = jnp.where(children.exists, jnp.minimum(free - top, 0.0), -1.0)  # 0 at the maximum, which takes `own`
    own = beams.perturbed[..., None]
    gap = own - free + jnp.where(below < 0, _log1mexp(below), -jnp.inf)
    value = jnp.maximum(own - jnp.logaddexp(0.0, gap), LOWEST)
    return children.replace(perturbed=jnp.where(children.exists, value, LOWEST))


def _log1mexp(x):
    """log(1 - exp(x)) for x < 0, without cancellation (Maechler 2012)."""
    near = x > -0.6931472
    small = jnp.log(-jnp.expm1(jnp.where(near, x, -1.0)))
    return jnp.where(near, small, jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))
