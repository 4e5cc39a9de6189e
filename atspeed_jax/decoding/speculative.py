"""Speculative beam search: the list of plain beam search in fewer calls of the target.

A round drafts a tree from the settled beams, scores all of it by ONE target call, and
accepts every level whose beams were all drafted (AtSpeed, ICLR 2025, sections 3 and 4).
Each round settles at least one level, so L rounds always suffice. Round 1 also reads
the prompt. Later rounds are one scan; they read the unfinished rows alone, a part at a
time, and cost nothing once every row is finished.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

from atspeed_jax.decoding.base import Prompt, Result, RoundOne, StepModel, first_token
from atspeed_jax.decoding.beams import Frontier, root_beams, to_result
from atspeed_jax.decoding.budget import within_budget
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import Drafter, draft_tree
from atspeed_jax.decoding.row_compaction import batch_axes, most_passes, rows_at_a_time, run_on_unfinished
from atspeed_jax.decoding.search import Search
from atspeed_jax.decoding.selection import check_keys
from atspeed_jax.decoding.shared_head import begin_cache
from atspeed_jax.decoding.tolerance import join_shares
from atspeed_jax.decoding.verify import accept, verify_tree
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import RowInt


class State(struct.PyTreeNode):
    """What a round hands to the next one.

    frontier: settled beams [B, K] (in round 1 the root [B, 1]) and the level of each
      row.
    calls [B]: target calls so far.
    given_up [B]: share of probability given up so far, 0 without `tolerance`.
    faulty [B]: first level with scores that are not finite, 0 for none.
    """

    frontier: Frontier
    calls: RowInt
    given_up: Float[Array, " B"]
    faulty: RowInt
    target_cache: Any
    draft_cache: Any


class Models(NamedTuple):
    """Who verifies and who drafts, with their parameters."""

    target: StepModel
    target_params: Any
    drafter: Drafter
    draft_params: Any


@functools.partial(jax.jit, static_argnames=("target", "drafter", "config"))
def speculative_beam_search(
    target: StepModel,
    target_params,
    drafter: Drafter,
    draft_params,
    *,
    trie: ItemTrie,
    prompt: Prompt,
    config: SearchConfig,
) -> Result:
    """Finds the K items, order and scores of `beam_search`, for ANY drafter and widths.

    Relaxed mode has the same law instead of the same draw. With `config.tolerance`
    above 0 the list is nearly the same, and the result says what was given up.

    "The same" means from the same logits. A call of another shape rounds the logits of
    a prefix otherwise: by about 1e-5 if the model multiplies in float32, by some
    hundredths in a bfloat16 model. Scores agree to that, and lists may differ where two
    candidates are closer than that. Scores are summed in float32 whatever the model
    computes in.

    Args:
      target, target_params: the model whose list is wanted.
      drafter, draft_params: who proposes (`ModelDrafter`, `PopularityDrafter`).
      trie: the constraint.
      prompt: B users.
      config: settings of the search.

    Returns:
      K places per user; places without an item are flagged invalid, never filled.

    Raises:
      DecodeError: `config` is not resolved for ids of this length
        (`SearchConfig.resolve`), keys are missing, or a model lacks logits which the
        norm needs.
    """
    search = Search.of(trie, prompt, config)
    check_keys(config.mode, prompt)
    models = Models(target, target_params, drafter, draft_params)
    state, axes = begin(models, search)
    # Round 1 alone reads the prompt, so its shapes differ and it stands before the
    # scan.
    state, round_one = one_round(models, search, state, range(min(config.gamma + 1, search.length)))
    state, later = later_rounds(models, search, state, axes)
    return to_result(
        state.frontier.beams,
        target_calls=state.calls,
        given_up=state.given_up,
        faulty=state.faulty,
        rounds=jnp.int32(1) + later,
        round_one=round_one,
    )


def one_round(models: Models, search: Search, state: State, levels: range) -> tuple[State, RoundOne]:
    """Drafts a tree of `levels`, verifies it by one target call, and accepts levels."""
    target, target_params, drafter, draft_params = models
    frontier = state.frontier
    tree, draft_cache = draft_tree(drafter, draft_params, search, frontier, state.draft_cache, levels=levels)
    tree = tree.replace(nodes=within_budget(tree.nodes, frontier.level, search.layout, search.config))
    logits, target_cache = verify_tree(
        target, target_params, search, tree.nodes, row_level=frontier.level, cache=state.target_cache
    )
    walk = accept(search, tree, logits, frontier, first_token=first_token(target, search.config.score_norm))
    # Rows that finished earlier are carried along unchanged and pay for no call.
    state = State(
        frontier=walk.frontier,
        calls=state.calls + (frontier.level < search.length),
        given_up=join_shares(state.given_up, walk.given_up),
        faulty=jnp.where(state.faulty == 0, walk.faulty, state.faulty),
        target_cache=target_cache,
        draft_cache=draft_cache,
    )
    return state, walk.record


def later_rounds(models: Models, search: Search, state: State, axes: State) -> tuple[State, Int[Array, ""]]:
    """Runs rounds 2..L on the unfinished rows; returns the state and how many were run."""
    if search.length == 1:  # ids of one code are settled by round 1: no level is left to read
        return state, jnp.int32(0)

    def next_round(state: State, _):
        return later_round(models, search, state, axes)

    # A scan of fixed length: a pass without an unfinished row costs nothing.
    size = rows_at_a_time(search.batch, search.config.row_share)
    passes = most_passes(search.batch, size, search.length - 1)
    state, ran = jax.lax.scan(next_round, state, None, length=passes)
    return state, ran.sum(dtype=jnp.int32)


def later_round(models: Models, search: Search, state: State, axes: State) -> tuple[State, Bool[Array, ""]]:
    """Runs a round on the first unfinished rows.

    Returns:
      The state afterwards, and whether a row was unfinished.
    """

    def on_rows(state: State, search: Search) -> State:
        return one_round(models, search, state, range(1, search.length))[0]

    unfinished = state.frontier.level < search.length
    size = rows_at_a_time(search.batch, search.config.row_share)
    return run_on_unfinished(on_rows, unfinished, state, search, axes=axes, size=size), unfinished.any()


def begin(models: Models, search: Search) -> tuple[State, State]:
    """Returns the state before round 1, and the batch axis of each of its arrays."""
    target, drafter = models.target, models.drafter
    batch, slots, head = search.batch, search.layout.slots, search.prompt.head
    zeros = jnp.zeros((batch,), jnp.int32)
    root = root_beams(search.prompt, search.length, draws=search.selection.draws)
    state = State(
        frontier=Frontier(root, zeros),
        calls=zeros,
        given_up=jnp.zeros((batch,)),
        faulty=zeros,
        target_cache=begin_cache(target.init_cache, batch, slots, None if head is None else head.target),
        draft_cache=begin_cache(drafter.init_cache, batch, slots, None if head is None else head.draft),
    )
    axes = jax.tree.map(lambda _: 0, state).replace(
        target_cache=batch_axes(target.init_cache, slots),
        draft_cache=batch_axes(drafter.init_cache, slots),
    )
    return state, axes
