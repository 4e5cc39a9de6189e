"""Tolerance: accepting a level without undrafted beams of little probability.

Strict mode alone has it. A walk goes on without the beams that are not covered (neither
drafted nor finished), if they hold at most the share `SearchConfig.tolerance` of the K
beams' probability and the list loses no place. ALGORITHM.md section 6.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from atspeed_jax.decoding.beams import Beams
from atspeed_jax.decoding.search import Search
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import NodeBool, RowBool


def give_up(search: Search, level: int, found: Beams, covered: NodeBool) -> tuple[Float[Array, " B"], RowBool]:
    """Says what each row would give up by going on, and whether it may.

    Args:
      search: constraint and settings.
      level: depth of the beams.
      found: [B, K] settled beams.
      covered: [B, K] which of them were drafted or are finished.

    Returns:
      (share of probability [B], whether the row may go on without it [B]).
    """
    share = uncovered_share(found, covered)
    may = share <= search.config.tolerance
    return share, may & still_fill(search.trie, level, found, covered, count=search.config.beams)


def still_fill(trie: ItemTrie, level: int, found: Beams, covered: NodeBool, *, count: int) -> RowBool:
    """Finds the rows whose covered beams lead to as many items as all of their beams.

    Beam search fills as many places as ids exist below its beams, at most K = `count`.
    So a level without a drafted node never passes while a beam is not covered: the
    covered beams are finished, with one id each, and the other beam has more.
    """
    below = jnp.minimum(trie.ids_below(level, found.node), count)  # enough of each, and the sum stays small
    of_all = jnp.where(found.valid, below, 0).sum(1)
    staying = jnp.where(found.valid & covered, below, 0).sum(1)
    return staying >= jnp.minimum(of_all, count)


def join_shares(given_up: Float[Array, " B"], share: Float[Array, " B"]) -> Float[Array, " B"]:
    """Returns the share given up in all when `share` of what was left is given up too."""
    # 1 - (1 - a)(1 - b) without taking a small share from 1, where it would vanish.
    return given_up + share - given_up * share


def uncovered_share(found: Beams, covered: NodeBool) -> Float[Array, " B"]:
    """Returns the share of the K beams' probability in beams not covered.

    Above 0 whenever a valid beam is not covered, however improbable it is.
    """
    weight = jnp.maximum(jnp.exp(found.score - found.score.max(1, keepdims=True)), 1e-30)
    mass = jnp.where(found.valid, weight, 0.0)
    return jnp.where(covered, 0.0, mass).sum(1) / jnp.maximum(mass.sum(1), 1.0)  # the best beam alone has mass 1
