"""Randomness of the modes that draw, keyed by user, code prefix and purpose.

A value depends on nothing else: not on slot, batch, round, drafter or catalog. So
draft and target see the same noise, a user drawn again with the same key gets the same
list, and other items in the catalog leave the noise of the remaining prefixes alone.
"""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int, Key

from atspeed_jax.decoding.beams import LOWEST, Beams
from atspeed_jax.decoding.children import Children
from atspeed_jax.shapes import ChildFloat, NodeFloat, NodeLevels


class Purpose(enum.IntEnum):
    """What the noise of a prefix is for; the noises of two purposes are independent."""

    BEAM = 0  # stochastic beam search, draft and target alike
    DRAFT = 1  # the draft's draws that relaxed verification tests
    ACCEPT = 2  # the acceptance test of a draw
    RESIDUAL = 3  # the first draw after a rejection
    TARGET = 4  # the target's draws, and in coupled mode the draft's


def user_keys(seed: int, users: Int[Array | np.ndarray, " B"]) -> Key[Array, " B"]:
    """Makes one key per user, for `Prompt.keys`.

    Args:
      seed: of the whole run.
      users: [B] user numbers. The key depends on the number, not on the place in a
        batch.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(users, jnp.uint32))


def of_nodes(keys: Key[Array, " B"], tokens: NodeLevels, depth: int, purpose: Purpose) -> NodeFloat:
    """Draws uniform noise in [0, 1) for the prefixes tokens[..., :depth], [B, N]."""
    return jnp.vectorize(jax.random.uniform)(_prefix_keys(keys, tokens, depth, purpose))


def of_children(keys: Key[Array, " B"], children: Children, purpose: Purpose) -> ChildFloat:
    """Draws standard Gumbel noise for children, [B, N, R]."""
    parents = _prefix_keys(keys, children.parents.tokens, children.level, purpose)
    return jnp.vectorize(jax.random.gumbel)(_fold_in(parents[..., None], children.token))


def _prefix_keys(keys, tokens, depth, purpose):
    """Folds user, purpose, then one code after another into a key per node [B, N]."""
    batch, nodes, _ = tokens.shape
    keys = jnp.broadcast_to(_fold_in(keys, jnp.full(keys.shape, int(purpose)))[:, None], (batch, nodes))
    # Codes are folded in one by one, so a prefix has its noise whatever lies beside it.
    for level in range(depth):
        keys = _fold_in(keys, tokens[..., level])
    return keys


def _fold_in(keys, numbers):
    return jnp.vectorize(jax.random.fold_in)(keys, numbers)


def drop_noise(beams: Beams) -> Beams:
    """Drops the selection noise: the next level starts from plain scores.

    Every sampling mode but stochastic does so; its lists are sorted by score.
    """
    return beams.replace(perturbed=beams.score)


def conditional_on_parents(children: Children, noise: ChildFloat) -> Children:
    """Perturbs children by Gumbels given that the largest equals their parent's.

    Args:
      children: with parents whose `perturbed` is known.
      noise: [B, N, R] standard Gumbel noise.

    Returns:
      The children with `perturbed` (Kool et al. 2019, section 4.1 and appendix B.3,
      whose two cases of a stable logarithm are one `logaddexp` here).
    """
    free = jnp.where(children.exists, children.total + noise, LOWEST)
    top = free.max(-1, keepdims=True)
    below = jnp.where(children.exists, jnp.minimum(free - top, 0.0), -1.0)  # 0 at the largest
    parent = children.parents.key[..., None]
    # The largest child gets log(1 - exp(0)) = -inf here, so that it takes the parent's.
    gap = parent - free + jnp.where(below < 0, _log1mexp(below), -jnp.inf)
    value = jnp.maximum(parent - jnp.logaddexp(0.0, gap), LOWEST)
    return children.replace(perturbed=jnp.where(children.exists, value, LOWEST))


def _log1mexp(x):
    """Computes log(1 - exp(x)) for x < 0 without cancellation (Maechler 2012)."""
    near = x > -0.6931472
    small = jnp.log(-jnp.expm1(jnp.where(near, x, -1.0)))
    return jnp.where(near, small, jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))
