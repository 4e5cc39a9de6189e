"""Relaxed verification (AtSpeed-R): which K children of the settled beams a draft's draws make, by rejection sampling.

The target's own sampler takes, level by level, K prefixes without replacement from the softmax p of their cumulative
scores. Here the draft's draws, without replacement from its own softmax q, are accepted or rejected one after the
other so that the K prefixes have exactly that law, whatever q is. Source: ALGORITHM section 6; for one draw Leviathan
et al. 2023.
"""

from __future__ import annotations

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


class Draws(NamedTuple):
    """The draft's draws among M children of the survivors, in draw order.

    at [B, W]: flat child. exists [B, W]. uniform [B, W]: noise of the acceptance test.
    """

    at: Int[Array, "B W"]
    exists: Bool[Array, "B W"]
    uniform: Float[Array, "B W"]


def choose(
    keys: Key[Array, " B"],
    trie: ItemTrie,
    level: int,
    survivors: Beams,
    target: Children,
    proposed_from: Beams,
    proposed: Children,
    drafted: Beams | None,
    count: int,
    *,
    reference: bool,
) -> Beams:
    """K = `count` children of the survivors, in trie order: from the draft's draws as far as they are accepted, the
    rest from the target.

    survivors: nodes of `level` with the target's scores, valid where they are settled beams; target: their children.
    proposed_from, proposed: the same nodes and children with the draft's scores. drafted: the draft's draws at level +
    1 (`perturbed` tells their order), None where it drew none. reference: as the public code does it, which may leave
    places empty.
    """
    rows = jnp.argsort(~survivors.valid, axis=1, stable=True)[:, :count]  # the nodes that count, in trie order
    survivors, target, proposed_from, proposed = gather_nodes((survivors, target, proposed_from, proposed), rows)
    exists = target.exists & survivors.valid[..., None]
    batch = exists.shape[0]
    totals = target.total(survivors), proposed.total(proposed_from)
    p, q = (total.reshape(batch, -1) for total in totals)
    noises = [
        noise.of_children(keys, survivors, target, level, purpose).reshape(batch, -1)
        for purpose in (Purpose.RESIDUAL, Purpose.TARGET)
    ]
    exists = exists.reshape(batch, -1)
    draws = _draws(keys, level, drafted, target.edge.reshape(batch, -1), exists)
    rule = _as_reference if reference else _exactly
    chosen = rule(p, q, exists, draws, noises, count)
    kept, index = jax.lax.top_k((chosen & exists).astype(jnp.int32), min(count, exists.shape[1]))
    return noise.forget(select_children(trie, level, survivors, target, index, kept > 0).resize(count))


def _draws(keys, level, drafted: Beams | None, edge, exists) -> Draws:
    """Draws that are children of survivors, first drawn first."""
    batch = edge.shape[0]
    if drafted is None:
        return Draws(jnp.zeros((batch, 0), int), jnp.zeros((batch, 0), bool), jnp.zeros((batch, 0)))
    same = (drafted.node[..., None] == edge[:, None]) & exists[:, None] & drafted.valid[..., None]
    found = same.any(-1)
    order = jnp.argsort(jnp.where(found, -drafted.perturbed, jnp.inf), axis=1, stable=True)
    uniform = noise.of_nodes(keys, drafted.tokens, level + 1, Purpose.ACCEPT)
    return Draws(*(jnp.take_along_axis(x, order, 1) for x in (same.argmax(-1), found, uniform)))


def _exactly(p, q, exists, draws: Draws, noises, count: int) -> Bool[Array, "B M"]:
    """Recursive rejection without replacement.

    Every acceptance starts the next choice from p without the chosen; every rejection takes q's share out of what is
    left to choose from. A draw is used up either way.
    """
    none = jnp.zeros(p.shape, bool)

    def test(state, draw):
        chosen, tried, left = state
        at, drawn, uniform = draw
        proposal = _softmax(q, exists & ~tried)
        p_at, q_at = (jnp.take_along_axis(x, at[:, None], 1)[:, 0] for x in (left, proposal))
        tests = drawn & (chosen.sum(1) < count)
        accepted = tests & (uniform * q_at < p_at)
        here = at[:, None] == jnp.arange(p.shape[1])
        now = chosen | here & accepted[:, None]
        rejected = _normalise(jnp.maximum(left - proposal, 0.0), _softmax(p, exists & ~chosen))
        left = select_rows(accepted, _softmax(p, exists & ~now), select_rows(tests, rejected, left))
        return (now, tried | here & tests[:, None], left), None

    begin = none, none, _softmax(p, exists)
    (chosen, _, left), _ = jax.lax.scan(test, begin, tuple(x.swapaxes(0, 1) for x in draws))
    return _fill(p, exists, chosen, left, noises, count)


def _fill(p, exists, chosen, left, noises, count: int) -> Bool[Array, "B M"]:
    """Chosen, and what is missing: one draw from what the last rejection left, the others from p without the chosen."""
    first, found = largest(_log(left) + noises[0], left > 0, 1)
    wanted = found & (chosen.sum(1, keepdims=True) < count)
    chosen |= wanted & (first == jnp.arange(p.shape[1]))
    return _add(chosen, p + noises[1], exists & ~chosen, count)


def _as_reference(p, q, exists, draws: Draws, noises, count: int) -> Bool[Array, "B M"]:
    """Each draw tested alone against the same p and q; too many accepted: a uniform subset; too few: filled up from the
    positive part of p - q.

    Two faults: draws without replacement are not independent, and a uniform subset is not p's.
    """
    p, q = _softmax(p, exists), _softmax(q, exists)
    p_at, q_at = (jnp.take_along_axis(x, draws.at, 1) for x in (p, q))
    accepted = draws.exists & (draws.uniform * q_at < p_at)
    hit = ((draws.at[..., None] == jnp.arange(p.shape[1])) & accepted[..., None]).any(1)
    hit = _add(jnp.zeros(p.shape, bool), noises[1], hit, count)
    rest = jnp.maximum(p - q, 0.0)
    return _add(hit, _log(rest) + noises[0], (rest > 0) & ~hit, count)


def _add(chosen, key, free, count: int):
    """Chosen and, of the free ones, those of the largest keys, until there are `count`."""
    missing = count - chosen.sum(1, keepdims=True)
    index, found = largest(key, free, count)
    wanted = (jnp.arange(index.shape[1]) < missing) & found
    rows = jnp.arange(chosen.shape[0])[:, None]
    return chosen.at[rows, jnp.where(wanted, index, chosen.shape[1])].set(True, mode="drop")


def _log(weight):
    return jnp.log(jnp.maximum(weight, 1e-38))


def _softmax(score, among):
    """Over those `among` which the choice is; 0 for the others, whatever their score."""
    top = jnp.where(among, score, LOWEST).max(-1, keepdims=True)
    weight = jnp.where(among, jnp.exp(score - top), 0.0)
    return weight / jnp.maximum(weight.sum(-1, keepdims=True), 1.0)  # the largest has weight 1


def _normalise(weight, otherwise):
    """Weights as probabilities, or `otherwise` where rounding alone left any."""
    total = weight.sum(-1, keepdims=True)
    return jnp.where(total > TINY, weight / jnp.maximum(total, TINY), otherwise)
