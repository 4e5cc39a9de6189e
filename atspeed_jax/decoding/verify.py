"""Verification: one target call over the whole tree, then the walk that accepts levels.

All K beams of a level are checked at once (the paper's N-to-K verification): every
operation runs over beams, nodes and users together.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from atspeed_jax.decoding.base import RoundOne, StepModel, select_rows
from atspeed_jax.decoding.beams import (
    LOWEST,
    Beams,
    Frontier,
    is_finished,
    merge_nodes,
    trie_order,
)
from atspeed_jax.decoding.budget import compact, node_capacity
from atspeed_jax.decoding.children import Children, best_children, not_finite, only_children, score_children
from atspeed_jax.decoding.draft import DraftTree
from atspeed_jax.decoding.inputs import concatenate_inputs, level_input, prompt_input
from atspeed_jax.decoding.search import Search
from atspeed_jax.decoding.tolerance import give_up, join_shares
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import LevelLogits, Logits, RowBool, RowInt


def verify_tree(
    target: StepModel, params, search: Search, nodes: dict[int, Beams], *, row_level: RowInt, cache
) -> tuple[dict[int, LevelLogits], Any]:
    """Scores a whole tree by ONE call of the target.

    Args:
      target: the model.
      params: of the target.
      search: users, slots and settings.
      nodes: nodes of each level, in their slots. With level 0 among them the same call
        reads the prompt.
      row_level: [B] the level of each row; it is idle at shallower ones.
      cache: of the target.

    Returns:
      (logits [B, N_l, V] of every level in `nodes`, the target's cache). Logits of
      invalid nodes have no meaning.
    """
    # Prompt and tree in one call: a separate prefill would cost a call of the target.
    head = [prompt_input(search.prompt)] if 0 in nodes else []
    below = {level: beams for level, beams in nodes.items() if level}
    tail = [level_input(beams, level, search.prompt, search.layout, row_level) for level, beams in below.items()]
    n_out = count = sum(beams.count for beams in nodes.values())
    place = None
    capacity = node_capacity(search.config, with_prompt=0 in nodes)
    if capacity is not None and capacity < count - len(head):
        valid = jnp.concatenate([beams.valid for beams in below.values()], 1)
        compacted, place = compact(concatenate_inputs(*tail), valid, capacity)
        tail, n_out = [compacted], len(head) + capacity
    logits, cache = target(params, concatenate_inputs(*head, *tail), cache, n_out=n_out)
    if place is not None:  # back to the places of the nodes
        root = logits[:, : len(head)]
        logits = jnp.concatenate([root, jnp.take_along_axis(logits, (place + len(head))[..., None], 1)], 1)
    parts, start = {}, 0
    for level, beams in nodes.items():
        parts[level] = logits[:, start : start + beams.count]
        start += beams.count
    return parts, cache


class Walk(struct.PyTreeNode):
    """A walk down the levels of one round.

    frontier: settled beams [B, K] and the level of each row.
    alive [B]: rows that walk on; a row joins at its level.
    verified: nodes of the current level that are settled beams, with the target's
      scores, for rows that walked here; None at the first level.
    given_up [B]: share of probability given up in this round (`tolerance`).
    faulty [B]: first level, from 1, whose target scores are not finite; 0 for none.
    record: what happened at levels 1..L-1.
    """

    frontier: Frontier
    alive: RowBool
    verified: Beams | None
    given_up: Float[Array, " B"]
    faulty: RowInt
    record: RoundOne


def accept(
    search: Search, tree: DraftTree, logits: dict[int, LevelLogits], frontier: Frontier, *, first_token: int = 0
) -> Walk:
    """Walks down the levels and accepts each whose K beams were all drafted.

    At each level the K children that the *target* selects are settled. If each of them
    was drafted or is finished, the logits of the next level are already here and the
    walk goes on; else it stops. A missing beam counts as drafted. `tolerance` lets a
    walk go on without some beams. Lossless in all modes but the relaxed ones
    (ALGORITHM.md sections 5 and 6).

    Args:
      search: constraint, users and settings.
      tree: nodes of each level, and the children that the drafter proposed.
      logits: of the target at the nodes, level by level (`verify_tree`).
      frontier: settled beams and level of each row before the round.
      first_token: token of the first logit (`base.first_token`).

    Returns:
      The finished walk; its frontier begins the next round.
    """
    walk = _begin(search, frontier)
    for level in tree.nodes:
        starts = frontier.level == level
        how = {"starts": starts, "level": level, "first_token": first_token}
        target, draft = _children(search, tree, logits[level], walk, **how)
        found = search.selection.verify(
            target,
            draft,
            tree.nodes.get(level + 1),
            trie=search.trie,
            count=search.config.beams,
            keys=search.keys,
        )
        alive = walk.alive | starts
        # A score that is not finite is seen at the first level that needs it.
        broken = alive & (walk.faulty == 0) & not_finite(target)
        walk = walk.replace(
            frontier=Frontier(
                select_rows(alive, found, walk.frontier.beams), jnp.where(alive, level + 1, walk.frontier.level)
            ),
            alive=alive,
            faulty=jnp.where(broken, level + 1, walk.faulty),
        )
        if level + 1 < search.length:
            walk = _walk_on(search, walk, found, tree.nodes.get(level + 1), level=level + 1)
    return walk.replace(frontier=finish_rows(search, walk.frontier))


def _begin(search: Search, frontier: Frontier) -> Walk:
    batch = search.batch
    no = jnp.zeros((batch, search.length - 1), bool)
    return Walk(
        frontier=frontier.replace(beams=frontier.beams.resize(search.config.beams)),
        alive=jnp.zeros((batch,), bool),
        verified=None,
        given_up=jnp.zeros((batch,)),
        faulty=jnp.zeros((batch,), jnp.int32),
        record=RoundOne(no, no, no.astype(jnp.float32)),
    )


def _children(
    search: Search, tree: DraftTree, logits: Logits, walk: Walk, *, starts: RowBool, level: int, first_token: int
) -> tuple[Children, Children | None]:
    """Returns the children of the nodes of a level, as target and draft score them."""
    config, drafted = search.config, tree.nodes[level]
    # A row that starts here has its settled beams among the nodes; a row that walked
    # here goes on from the nodes that matched.
    current = drafted if walk.verified is None else select_rows(starts, drafted, walk.verified)
    how = {"norm": config.score_norm, "temperature": config.temperature, "first_token": first_token}
    target, draft = score_children(search.trie, level, current, logits, **how), tree.proposed.get(level)
    if config.score_norm == "trie" and level:
        settled = walk.frontier.beams
        finished = settled.replace(valid=is_finished(search.trie, level, settled, config.score_norm))
        target, draft = with_finished(search.trie, level, finished, target, draft)
    return target, draft


def _walk_on(search: Search, walk: Walk, found: Beams, drafted: Beams | None, *, level: int) -> Walk:
    """Decides which rows go on to `level`, whose settled beams were found."""
    config = search.config
    # A missing beam has no logits to wait for, and a finished beam needs none.
    covered = ~found.valid | is_finished(search.trie, level, found, config.score_norm)
    verified = walk.verified
    if drafted is not None:
        verified, present = match(found, drafted)
        covered |= present
    reached, alive, given_up = walk.alive, walk.alive & covered.all(1), walk.given_up
    if config.tolerance and drafted is not None:
        share, may = give_up(search, level, found, covered)
        without = reached & may
        alive, given_up = alive | without, jnp.where(without, join_shares(given_up, share), given_up)
    record = RoundOne(
        walk.record.reached.at[:, level - 1].set(reached),
        walk.record.accepted.at[:, level - 1].set(alive),
        walk.record.coverage.at[:, level - 1].set(covered.mean(1, dtype=jnp.float32)),
    )
    return walk.replace(alive=alive, verified=verified, given_up=given_up, record=record)


def with_finished(
    trie: ItemTrie, level: int, finished: Beams, target: Children, draft: Children | None
) -> tuple[Children, Children | None]:
    """Puts finished settled beams among the nodes of a level, in trie order.

    A finished beam has no slot and no logits, but its one child competes with the
    others. The draft proposes nothing below it.
    """
    only = only_children(trie, level, finished)
    none = only.replace(exists=jnp.zeros_like(only.exists))
    order = trie_order(target.parents, finished)
    return merge_nodes(order, target, only), None if draft is None else merge_nodes(order, draft, none)


def finish_rows(search: Search, frontier: Frontier) -> Frontier:
    """Takes rows whose beams are all finished to level L: their items are certain."""
    trie, config = search.trie, search.config
    if config.score_norm == "vocab":
        return frontier
    settled, row_level = frontier.beams, frontier.level
    for level in range(1, trie.length):
        # Such a row would make a call that nothing is read from.
        done = (row_level == level) & (is_finished(trie, level, settled, config.score_norm) | ~settled.valid).all(1)
        items = best_children(trie, only_children(trie, level, settled), config.beams)
        settled = select_rows(done, items.replace(perturbed=settled.perturbed), settled)
        row_level = jnp.where(done, level + 1, row_level)
    return Frontier(settled, row_level)


def match(found: Beams, drafted: Beams) -> tuple[Beams, Bool[Array, "B K"]]:
    """Matches the target's beams of a level with its drafted nodes.

    Equal trie nodes have equal prefixes.

    Args:
      found: [B, K] settled beams of the level.
      drafted: [B, N] nodes of the level, in their slots.

    Returns:
      (drafted nodes, valid where they are settled beams, with the target's scores [B,
      N], which beams were drafted [B, K]).
    """
    hit = (found.node[:, :, None] == drafted.node[:, None]) & found.valid[:, :, None] & drafted.valid[:, None]
    # A maximum over the hits, never a scatter: a beam that was not drafted has no place
    # to scatter to, and argmax would send it to node 0.
    score = jnp.where(hit, found.score[:, :, None], LOWEST).max(1)
    perturbed = None
    if found.perturbed is not None:
        perturbed = jnp.where(hit, found.perturbed[:, :, None], LOWEST).max(1)
    return drafted.replace(score=score, valid=hit.any(1), perturbed=perturbed), hit.any(2)
