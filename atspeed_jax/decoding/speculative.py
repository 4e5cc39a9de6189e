"""Speculative beam search: the list of plain beam search, in fewer calls of the target (AtSpeed, ICLR 2025, sections 3
and 4).

A round is: the draft grows a tree from the settled beams, ONE target call scores all of it, a walk accepts every level
whose beams were all drafted. Each round settles at least one level, so L rounds always suffice. Round 1 also reads the
prompt; later rounds are one scan, read the unfinished rows of the batch alone, some at a time, and cost nothing once
every row is finished.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float

from atspeed_jax.decoding.base import Layout, Mode, Prompt, Result, RoundOne, StepModel, check_keys
from atspeed_jax.decoding.beams import Beams, root_beams, to_result
from atspeed_jax.decoding.budget import node_capacity, within_budget
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import Drafter, draft_tree
from atspeed_jax.decoding.row_compaction import batch_axes, most_passes, rows_at_a_time, run_on_unfinished
from atspeed_jax.decoding.verify import accept, also_given_up, verify_tree
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import RowInt


class State(struct.PyTreeNode):
    """Between rounds: K settled beams per row, the level they stand at [B], target calls so far [B], the share of
    probability given up so far [B] (0 without `tolerance`), the first level with faulty scores [B] (0: none), and both
    caches."""

    settled: Beams
    level: RowInt
    calls: RowInt
    lost: Float[Array, " B"]
    faulty: RowInt
    target_cache: Any
    draft_cache: Any


@functools.partial(jax.jit, static_argnames=("target", "drafter", "config"))
def speculative_beam_search(
    target: StepModel,
    target_params,
    drafter: Drafter,
    draft_params,
    trie: ItemTrie,
    prompt: Prompt,
    *,
    config: SearchConfig,
) -> Result:
    """The same K items, order and scores as `beam_search` of the target, for ANY drafter and widths.

    In relaxed mode the same law instead of the same draw. With `config.tolerance` above 0, nearly the same, and the
    result says what was given up. Raises DecodeError if `config` is not resolved for this length of ids, or keys are
    missing. A level's slots hold max(K, W_l) nodes; invalid places of the result are flagged, never filled.

    The same means: from the same logits. Those of one prefix are rounded otherwise in a call of another shape, by about
    1e-5 if the model multiplies in float32, by some hundredths in a bfloat16 model; scores agree to that, and lists
    wherever no choice between two prefixes or items hangs on less. Scores are summed in float32 whatever the model
    computes in.
    """
    length = trie.length
    config.check_resolved(length)
    check_keys(config.mode, prompt)
    layout = Layout(prompt.tokens.shape[1], (1, *(max(config.beams, w) for w in config.widths)))

    def one_round(state: State, trie: ItemTrie, prompt: Prompt, levels: range) -> tuple[State, RoundOne]:
        nodes, proposed, draft_cache = draft_tree(
            drafter, draft_params, trie, prompt, layout, config, state.settled, state.level, state.draft_cache, levels
        )
        nodes = within_budget(nodes, state.level, layout, config)
        logits, target_cache = verify_tree(
            target, target_params, prompt, layout, nodes, state.level, state.target_cache, node_capacity(config, levels)
        )
        settled, level, lost, faulty, record = accept(
            trie, nodes, proposed, logits, prompt.keys, state.settled, state.level, config
        )
        calls = state.calls + (state.level < length)
        faulty = jnp.where(state.faulty == 0, faulty, state.faulty)
        return State(settled, level, calls, also_given_up(state.lost, lost), faulty, target_cache, draft_cache), record

    def later_round(state: State, trie: ItemTrie, prompt: Prompt) -> State:
        return one_round(state, trie, prompt, range(1, length))[0]

    def next_round(state: State, _):
        unfinished = state.level < length
        return run_on_unfinished(later_round, unfinished, state, axes, trie, prompt, size), unfinished.any()

    batch = prompt.tokens.shape[0]
    size = rows_at_a_time(batch, config.row_share)
    state, axes = _begin(target, drafter, prompt, layout, length, config.mode)
    state, round_one = one_round(state, trie, prompt, range(0, min(config.gamma + 1, length)))
    rounds = jnp.int32(1)
    if length > 1:  # ids of one code are settled by round 1, and a later round would have no level to read
        state, ran = jax.lax.scan(next_round, state, None, length=most_passes(batch, size, length - 1))
        rounds += ran.sum(dtype=jnp.int32)
    return to_result(state.settled, state.calls, state.lost, state.faulty, rounds, round_one)


def _begin(target: StepModel, drafter: Drafter, prompt: Prompt, layout: Layout, length: int, mode: Mode):
    """The state before round 1, and the batch axis of each of its arrays."""
    batch = prompt.tokens.shape[0]
    zeros = jnp.zeros((batch,), jnp.int32)
    caches = target.init_cache(batch, layout.slots), drafter.init_cache(batch, layout.slots)
    state = State(root_beams(prompt, length, mode), zeros, zeros, jnp.zeros((batch,)), zeros, *caches)
    axes = jax.tree.map(lambda _: 0, state).replace(
        target_cache=batch_axes(target.init_cache, layout.slots),
        draft_cache=batch_axes(drafter.init_cache, layout.slots),
    )
    return state, axes
