"""Relaxed verification (AtSpeed-R): accepting or rejecting the draws of a draft.

The target's sampler takes, level by level, K prefixes without replacement from the
softmax p of their cumulative scores. Here the draft's draws, without replacement from
its softmax q, are accepted or rejected one after the other, so that the K prefixes have
exactly that law for any q. ALGORITHM.md section 6; for one draw Leviathan et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from atspeed_jax.decoding import noise
from atspeed_jax.decoding.base import select_rows
from atspeed_jax.decoding.beams import LOWEST, Beams, gather_nodes, largest
from atspeed_jax.decoding.children import Children, select_children
from atspeed_jax.decoding.noise import Purpose
from atspeed_jax.items.trie import ItemTrie

TINY = 1e-12  # probability that is left only by rounding


class Candidates(NamedTuple):
    """The M children of the survivors, flat, and the noise of draws among them.

    p, q [B, M]: cumulative scores of target and draft.
    exists [B, M].
    residual, target [B, M]: Gumbel noise of the first draw after a rejection, and of
      the target's draws.
    """

    p: Float[Array, "B M"]
    q: Float[Array, "B M"]
    exists: Bool[Array, "B M"]
    residual: Float[Array, "B M"]
    target: Float[Array, "B M"]


class Draws(NamedTuple):
    """The draft's draws among the candidates, in draw order.

    at [B, W]: flat place of the child.
    exists [B, W].
    uniform [B, W]: noise of the acceptance test.
    """

    at: Int[Array, "B W"]
    exists: Bool[Array, "B W"]
    uniform: Float[Array, "B W"]


Rule = Callable[[Candidates, Draws, int], Bool[Array, "B M"]]  # -> the candidates that are kept


def accept_draws(
    target: Children,
    draft: Children,
    drafted: Beams,
    *,
    trie: ItemTrie,
    count: int,
    keys: Key[Array, " B"],
    rule: Rule,
) -> Beams:
    """Keeps K children of the survivors: accepted draws, the rest from the target.

    Args:
      target: children with the target's scores; their valid parents are the survivors.
      draft: the same children with the draft's scores.
      drafted: the draft's draws at the next level; `perturbed` tells their order.
      trie: the constraint.
      count: K.
      keys: one per user.
      rule: `exact_rule`, or `reference_rule`, which may leave places empty.

    Returns:
      Beams [B, K] of the next level, in trie order, without selection noise.
    """
    # At most K nodes survive, so the tests run over K * R children instead of N * R.
    rows = jnp.argsort(~target.parents.valid, axis=1, stable=True)[:, :count]
    target, draft = gather_nodes((target, draft), rows)
    exists = target.exists & target.parents.valid[..., None]
    batch = exists.shape[0]
    p, q = (children.total.reshape(batch, -1) for children in (target, draft))
    noises = [
        noise.of_children(keys, target, purpose).reshape(batch, -1) for purpose in (Purpose.RESIDUAL, Purpose.TARGET)
    ]
    exists = exists.reshape(batch, -1)
    draws = _draws(keys, drafted, target.edge.reshape(batch, -1), exists, depth=target.level + 1)
    kept = rule(Candidates(p, q, exists, *noises), draws, count)
    valid, index = jax.lax.top_k((kept & exists).astype(jnp.int32), min(count, exists.shape[1]))
    return noise.drop_noise(select_children(trie, target, index, valid > 0).resize(count))


def _draws(keys, drafted: Beams, edge, exists, *, depth: int) -> Draws:
    """Finds the draws that are children of survivors, first drawn first."""
    same = (drafted.node[..., None] == edge[:, None]) & exists[:, None] & drafted.valid[..., None]
    found = same.any(-1)
    order = jnp.argsort(jnp.where(found, -drafted.key, jnp.inf), axis=1, stable=True)
    uniform = noise.of_nodes(keys, drafted.tokens, depth, Purpose.ACCEPT)
    return Draws(*(jnp.take_along_axis(x, order, 1) for x in (same.argmax(-1), found, uniform)))


def exact_rule(candidates: Candidates, draws: Draws, count: int) -> Bool[Array, "B M"]:
    """Recursive rejection without replacement.

    Every acceptance starts the next choice from p without the chosen ones. Every
    rejection takes q's share out of what is left to choose from. A draw is used up
    either way.
    """
    p, q, exists = candidates.p, candidates.q, candidates.exists
    none = jnp.zeros(p.shape, bool)

    def test(state, draw):
        chosen, tried, left = state
        at, drawn, uniform = draw
        proposal = _softmax(q, exists & ~tried)
        p_at, q_at = (jnp.take_along_axis(x, at[:, None], 1)[:, 0] for x in (left, proposal))
        tests = drawn & (chosen.sum(1) < count)
        accepted = tests & (uniform * q_at < p_at)  # with probability min(1, p / q), without a division
        here = at[:, None] == jnp.arange(p.shape[1])
        now = chosen | here & accepted[:, None]
        rejected = _normalize(jnp.maximum(left - proposal, 0.0), _softmax(p, exists & ~chosen))
        left = select_rows(accepted, _softmax(p, exists & ~now), select_rows(tests, rejected, left))
        return (now, tried | here & tests[:, None], left), None

    begin = none, none, _softmax(p, exists)
    (chosen, _, left), _ = jax.lax.scan(test, begin, tuple(x.swapaxes(0, 1) for x in draws))
    return _fill(candidates, chosen, left, count)


def _fill(candidates: Candidates, chosen, left, count: int) -> Bool[Array, "B M"]:
    """Adds what is missing: one draw from what the last rejection left, then from p."""
    first, found = largest(_log(left) + candidates.residual, left > 0, 1)
    wanted = found & (chosen.sum(1, keepdims=True) < count)
    chosen |= wanted & (first == jnp.arange(left.shape[1]))
    return _add(chosen, candidates.p + candidates.target, candidates.exists & ~chosen, count)


def reference_rule(candidates: Candidates, draws: Draws, count: int) -> Bool[Array, "B M"]:
    """The public code's rule: tests each draw by itself against the same p and q.

    Too many accepted: a uniform subset. Too few: filled up from the positive part of p
    - q. Two faults: draws without replacement are not independent, and a uniform subset
    does not have the law of p.
    """
    exists = candidates.exists
    p, q = _softmax(candidates.p, exists), _softmax(candidates.q, exists)
    p_at, q_at = (jnp.take_along_axis(x, draws.at, 1) for x in (p, q))
    accepted = draws.exists & (draws.uniform * q_at < p_at)
    hit = ((draws.at[..., None] == jnp.arange(p.shape[1])) & accepted[..., None]).any(1)
    hit = _add(jnp.zeros(p.shape, bool), candidates.target, hit, count)
    rest = jnp.maximum(p - q, 0.0)
    return _add(hit, _log(rest) + candidates.residual, (rest > 0) & ~hit, count)


def _add(chosen, key, free, count: int):
    """Adds the free candidates of the largest keys until `count` are chosen."""
    missing = count - chosen.sum(1, keepdims=True)
    index, found = largest(key, free, count)
    wanted = (jnp.arange(index.shape[1]) < missing) & found
    rows = jnp.arange(chosen.shape[0])[:, None]
    return chosen.at[rows, jnp.where(wanted, index, chosen.shape[1])].set(True, mode="drop")


def _log(weight):
    return jnp.log(jnp.maximum(weight, 1e-38))


def _softmax(score, among):
    """Softmax over the candidates `among`; 0 for the others, whatever their score."""
    top = jnp.where(among, score, LOWEST).max(-1, keepdims=True)
    weight = jnp.where(among, jnp.exp(score - top), 0.0)
    return weight / jnp.maximum(weight.sum(-1, keepdims=True), 1.0)  # the largest has weight 1


def _normalize(weight, otherwise):
    """Weights as probabilities, or `otherwise` where only rounding left any weight."""
    total = weight.sum(-1, keepdims=True)
    return jnp.where(total > TINY, weight / jnp.maximum(total, TINY), otherwise)
