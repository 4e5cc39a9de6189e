"""Speculative beam search: the list of plain beam search, in fewer calls of the target (AtSpeed, ICLR 2025, sections 3
and 4).

A round is: the draft grows a tree from the settled beams, ONE target call scores all of it, a walk accepts every level
whose beams were all drafted. Each round settles at least one level, so L rounds always suffice. Round 1 also reads the
prompt; later rounds are one scan that costs nothing once every row of the batch is finished.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float

from atspeed_jax.decoding import beams as B
from atspeed_jax.decoding.base import DecodeError, Layout, Prompt, Result, RoundOne, SearchConfig, StepModel, check_keys
from atspeed_jax.decoding.budget import within_budget
from atspeed_jax.decoding.draft import Drafter, draft_tree
from atspeed_jax.decoding.verify import accept, verify_tree
from atspeed_jax.items.trie import Trie
from atspeed_jax.shapes import RowInt


class State(struct.PyTreeNode):
    """Between rounds: K settled beams per row, the level they stand at [B], target calls so far [B], the share of
    probability kept so far [B] (1 unless `tolerance` gave some up), and both caches."""

    settled: B.Beams
    level: RowInt
    calls: RowInt
    kept: Float[Array, " B"]
    target_cache: Any
    draft_cache: Any


@functools.partial(jax.jit, static_argnames=("target", "drafter", "config"))
def speculative_beam_search(
    target: StepModel,
    target_params,
    drafter: Drafter,
    draft_params,
    trie: Trie,
    prompt: Prompt,
    *,
    config: SearchConfig,
) -> Result:
    """The same K items, order and scores as `beam_search` of the target, for ANY drafter and widths.

    In relaxed mode the same law instead of the same draw. With `config.tolerance` above 0, nearly the same, and the
    result says what was given up. Raises DecodeError if `config.widths` does not have L - 1 entries, or keys are
    missing. A level's slots hold max(K, W_l) nodes; invalid places of the result are flagged, never filled.
    """
    check_keys(config.mode, prompt)
    length, batch, width = trie.length, *prompt.tokens.shape
    if len(config.widths) != length - 1:
        raise DecodeError(
            f"widths={config.widths}: ids of length {length} need {length - 1} widths, one per level but the last"
        )
    layout = Layout(width, (1, *(max(config.beams, w) for w in config.widths)))

    def one_round(state: State, levels: range) -> tuple[State, RoundOne]:
        nodes, proposed, draft_cache = draft_tree(
            drafter, draft_params, trie, prompt, layout, config, state.settled, state.level, state.draft_cache, levels
        )
        nodes = within_budget(nodes, state.level, layout, config)
        room = None if config.budget is None else config.budget + (0 if 0 in levels else config.beams)
        logits, target_cache = verify_tree(
            target, target_params, prompt, layout, nodes, state.level, state.target_cache, room
        )
        settled, level, kept, record = accept(
            trie, nodes, proposed, logits, prompt.keys, state.settled, state.level, config
        )
        calls = state.calls + (state.level < length)
        return State(settled, level, calls, state.kept * kept, target_cache, draft_cache), record

    def next_round(state: State, _):
        unfinished = (state.level < length).any()
        state = jax.lax.cond(unfinished, lambda s: one_round(s, range(1, length))[0], lambda s: s, state)
        return state, unfinished

    zeros = jnp.zeros((batch,), jnp.int32)
    state = State(
        B.root(prompt, length, config.mode),
        zeros,
        zeros,
        jnp.ones((batch,)),
        target.init_cache(batch, layout.slots),
        drafter.init_cache(batch, layout.slots),
    )
    state, round_one = one_round(state, range(0, min(config.gamma + 1, length)))
    rounds = jnp.int32(1)
    if length > 1:  # ids of one code are settled by round 1, and a later round would have no level to read
        state, ran = jax.lax.scan(next_round, state, None, length=length - 1)
        rounds += ran.sum(dtype=jnp.int32)
    return B.finalise(state.settled, state.calls, 1 - state.kept, rounds, round_one)
