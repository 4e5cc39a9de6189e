"""Verification: one target call over the whole tree, then the strict walk that accepts as many levels as are certain.

All K beams of a level are checked at once (the paper's N-to-K verification): every operation runs over beams, nodes
and users together.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from atspeed_jax.decoding import noise, relaxed
from atspeed_jax.decoding.base import Layout, Prompt, RoundOne, StepModel, select_rows
from atspeed_jax.decoding.beams import LOWEST, Beams, is_finished, merge_nodes, trie_order
from atspeed_jax.decoding.budget import compact
from atspeed_jax.decoding.children import Children, best_children, not_finite, only_children, score_children
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.inputs import concatenate_inputs, level_input, prompt_input
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import Logits, NodeBool, RowBool, RowInt

Family = tuple[Beams, Children]  # nodes of a level and their children


def verify_tree(
    target: StepModel,
    params,
    prompt: Prompt,
    layout: Layout,
    nodes: dict[int, Beams],
    at: RowInt,
    cache,
    capacity: int | None = None,
) -> tuple[dict[int, Logits], Any]:
    """Target logits [B, N_l, V] of every level in `nodes` by ONE call; with level 0 among them the same call reads the
    prompt.

    capacity: no row has more valid nodes below the root, and the call reads no more tokens than that (`budget`); logits
    of invalid nodes mean nothing.
    """
    head = [prompt_input(prompt)] if 0 in nodes else []
    below = {level: beams for level, beams in nodes.items() if level}
    tail = [level_input(beams, level, prompt, layout, at) for level, beams in below.items()]
    n_out = count = sum(beams.count for beams in nodes.values())
    if capacity is not None and capacity < count - len(head):
        valid = jnp.concatenate([beams.valid for beams in below.values()], 1)
        compacted, place = compact(concatenate_inputs(*tail), valid, capacity)
        tail, n_out = [compacted], len(head) + capacity
    call = concatenate_inputs(*head, *tail)
    logits, cache = target(params, call.tokens, call.positions, call.slots, call.mask, cache, n_out=n_out)
    if n_out < count:
        root = logits[:, : len(head)]
        logits = jnp.concatenate([root, jnp.take_along_axis(logits, (place + len(head))[..., None], 1)], 1)
    parts, start = {}, 0
    for level, beams in nodes.items():
        parts[level] = logits[:, start : start + beams.count]
        start += beams.count
    return parts, cache


def accept(
    trie: ItemTrie,
    nodes: dict[int, Beams],
    proposed: dict[int, Children],
    logits: dict[int, Logits],
    keys: Key[Array, " B"] | None,
    settled: Beams,
    at: RowInt,
    config: SearchConfig,
) -> tuple[Beams, RowInt, Float[Array, " B"], RowInt, RoundOne]:
    """The walk (lossless but in the relaxed modes): settles levels while all K target beams of a level are among its
    drafted nodes, or finished (`beams.finished`).

    A row starts at its level `at` [B] with its settled beams; the K children that the *target* keeps (`choose`) are the
    settled beams of the next level. If every valid one was drafted, their logits are already here and the walk goes on;
    else it stops. A missing place counts as drafted. A row whose beams are all finished has its items at once. Under
    `config.tolerance` it also goes on without the beams that were not drafted, if these have no more than that share
    of the K beams' probability and the others `still_fill` the list. -> (settled beams, their level, share of
    probability given up, first level whose scores are not finite or 0, what happened at each level 1..L-1). Source:
    ALGORITHM sections 5 and 6.
    """
    settled, begun = settled.resize(config.beams), at
    alive = jnp.zeros(at.shape, bool)
    lost, faulty = jnp.zeros(at.shape), jnp.zeros(at.shape, jnp.int32)
    verified = None  # this level's nodes with the target's scores, for rows that walked here
    no = jnp.zeros((at.shape[0], trie.length - 1), bool)
    record = RoundOne(no, no, no.astype(jnp.float32))
    for level, drafted in nodes.items():
        starts = begun == level
        current = drafted if verified is None else select_rows(starts, drafted, verified)
        children = score_children(trie, level, current, logits[level], config.score_norm, config.temperature)
        proposal = drafted, proposed.get(level, children)
        if config.score_norm == "trie" and level:
            carried = settled.replace(valid=is_finished(trie, level, settled, config.score_norm))
            (current, children), proposal = with_finished(trie, level, carried, (current, children), proposal)
        found = choose(keys, trie, level, current, children, proposal, nodes.get(level + 1), config)
        alive = alive | starts
        settled = select_rows(alive, found, settled)
        faulty = jnp.where(alive & (faulty == 0) & not_finite(children), level + 1, faulty)
        at = jnp.where(alive, level + 1, at)
        if level + 1 < trie.length:
            covered = ~found.valid | is_finished(trie, level + 1, found, config.score_norm)
            if level + 1 in nodes:
                verified, present = match(found, nodes[level + 1])
                covered |= present
            reached, alive = alive, alive & covered.all(1)
            if config.tolerance and level + 1 in nodes:
                share = given_up(found, covered)
                without = reached & (share <= config.tolerance)
                without &= still_fill(trie, level + 1, found, covered, config.beams)
                alive, lost = alive | without, jnp.where(without, also_given_up(lost, share), lost)
            record = RoundOne(
                record.reached.at[:, level].set(reached),
                record.accepted.at[:, level].set(alive),
                record.coverage.at[:, level].set(covered.mean(1, dtype=jnp.float32)),
            )
    settled, at = finish(trie, settled, at, config)
    return settled, at, lost, faulty, record


def with_finished(
    trie: ItemTrie, level: int, carried: Beams, target: Family, proposal: Family
) -> tuple[Family, Family]:
    """Nodes of `level` and their children, as target and draft score them, with the settled beams that are finished put
    among them in trie order; the draft proposes nothing below these."""
    only = only_children(trie, level, carried)
    none = only.replace(exists=jnp.zeros_like(only.exists))
    order = trie_order(target[0], carried)
    return merge_nodes(order, target, (carried, only)), merge_nodes(order, proposal, (carried, none))


def finish(trie: ItemTrie, settled: Beams, at: RowInt, config: SearchConfig) -> tuple[Beams, RowInt]:
    """Rows whose beams are all finished go to the last level: their items are certain."""
    if config.score_norm == "vocab":
        return settled, at
    for level in range(1, trie.length):
        done = (at == level) & (is_finished(trie, level, settled, config.score_norm) | ~settled.valid).all(1)
        items = best_children(trie, level, settled, only_children(trie, level, settled), config.beams)
        settled = select_rows(done, items.replace(perturbed=settled.perturbed), settled)
        at = jnp.where(done, level + 1, at)
    return settled, at


def choose(
    keys: Key[Array, " B"] | None,
    trie: ItemTrie,
    level: int,
    current: Beams,
    children: Children,
    proposal: Family,
    drafted: Beams | None,
    config: SearchConfig,
) -> Beams:
    """The K children that are the target's beams of the next level, under `config.mode`.

    proposal: the same nodes and children as the draft scores them; drafted: what it made of them at level + 1. Relaxed
    modes look at these draws; where there are none, the target draws alone.
    """
    if not config.mode.startswith("relaxed") or drafted is None:
        return noise.settle(config.mode, keys, trie, level, current, children, config.beams)
    return relaxed.choose(
        keys,
        trie,
        level,
        current,
        children,
        *proposal,
        drafted,
        config.beams,
        reference=config.mode == "relaxed_reference",
    )


def still_fill(trie: ItemTrie, level: int, found: Beams, covered: NodeBool, beams: int) -> RowBool:
    """Rows whose covered beams of `level` alone lead to as many items as all of them, at most K = `beams`.

    Beam search fills as many places as there are ids below its beams. A level of which no node was drafted in this
    round never passes while a beam is not covered: those that are, are finished, with one id each, and the other has
    more.
    """
    below = jnp.minimum(trie.ids_below(level, found.node), beams)  # enough of each, and the sum stays small
    of_all = jnp.where(found.valid, below, 0).sum(1)
    staying = jnp.where(found.valid & covered, below, 0).sum(1)
    return staying >= jnp.minimum(of_all, beams)


def also_given_up(lost: Float[Array, " B"], share: Float[Array, " B"]) -> Float[Array, " B"]:
    """Share of probability given up in all, when `share` of what was left is given up too: 1 - (1 - lost)(1 - share),
    without taking a small share from 1, where it would vanish."""
    return lost + share - lost * share


def given_up(found: Beams, covered: NodeBool) -> Float[Array, " B"]:
    """Share of the K beams' probability, by their cumulative scores, that is in beams not covered; above 0 if one
    is not."""
    weight = jnp.maximum(jnp.exp(found.score - found.score.max(1, keepdims=True)), 1e-30)  # above 0, however small
    mass = jnp.where(found.valid, weight, 0.0)
    return jnp.where(covered, 0.0, mass).sum(1) / jnp.maximum(mass.sum(1), 1.0)  # the best beam alone has mass 1


def match(found: Beams, drafted: Beams):
    """Drafted nodes of a level that are among the target's beams, with the target's score; and which beams were
    drafted.

    -> (nodes [B, N], present [B, K]). Equal trie nodes have equal prefixes. The score is a max over the hits, never a
    scatter: a beam that was not drafted has no place to scatter to.
    """
    hit = (found.node[:, :, None] == drafted.node[:, None]) & found.valid[:, :, None] & drafted.valid[:, None]
    score = jnp.where(hit, found.score[:, :, None], LOWEST).max(1)
    perturbed = None
    if found.perturbed is not None:
        perturbed = jnp.where(hit, found.perturbed[:, :, None], LOWEST).max(1)
    return drafted.replace(score=score, valid=hit.any(1), perturbed=perturbed), hit.any(2)
