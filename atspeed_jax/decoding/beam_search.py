"""Plain trie-constrained beam search with a shared prefix: one target call per level.

The baseline, and the meaning of "correct". The prompt is read once per user, not once
per beam. Beams are reordered by moving a few ints (`Beams.path`); the cache never
moves.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from atspeed_jax.decoding.base import Layout, Mode, Prompt, Result, ScoreNorm, StepModel, first_token
from atspeed_jax.decoding.beams import Beams, assign_slots, is_finished, root_beams, to_result
from atspeed_jax.decoding.children import not_finite, score_children
from atspeed_jax.decoding.inputs import level_input, prompt_input
from atspeed_jax.decoding.selection import check_keys, check_mode, selection_of
from atspeed_jax.decoding.shared_head import begin_cache
from atspeed_jax.items.trie import ItemTrie
from atspeed_jax.shapes import RowInt


@functools.partial(jax.jit, static_argnames=("model", "beams", "score_norm", "mode", "temperature"))
def beam_search(
    model: StepModel,
    params,
    trie: ItemTrie,
    prompt: Prompt,
    *,
    beams: int,
    score_norm: ScoreNorm,
    mode: Mode = "strict",
    temperature: float = 1.0,
) -> Result:
    """Finds the K best items of each user by exact beam search over a trie.

    Makes L model calls, or fewer once all K prefixes of each user are finished. In a
    mode that draws, this is what speculation must return: the draw of the target alone
    (ALGORITHM.md sections 1, 3 and 6).

    Args:
      model: the target.
      params: of the target.
      trie: the constraint.
      prompt: B users.
      beams: K.
      score_norm: see `SearchConfig`.
      mode: see `SearchConfig`.
      temperature: see `SearchConfig`.

    Returns:
      K places per user; places beyond the number of items are flagged invalid.

    Raises:
      DecodeError: a mode with a temperature or norm it does not take, or without keys; a
        model that lacks logits which the norm needs.
    """
    check_mode(mode, temperature, score_norm)
    check_keys(mode, prompt)
    levels, calls, faults = search_levels(
        model, params, trie, prompt, beams=beams, score_norm=score_norm, mode=mode, temperature=temperature
    )
    return to_result(
        levels[-1],
        target_calls=calls,
        given_up=jnp.zeros(calls.shape),
        faulty=jnp.where(faults.any(0), 1 + faults.argmax(0), 0),
        rounds=calls.max(),
        round_one=None,
    )


def search_levels(
    model: StepModel,
    params,
    trie: ItemTrie,
    prompt: Prompt,
    *,
    beams: int,
    score_norm: ScoreNorm,
    mode: Mode = "strict",
    temperature: float = 1.0,
) -> tuple[list[Beams], RowInt, Bool[Array, "L B"]]:
    """Runs beam search and keeps every level; to be called under jit.

    Args: see `beam_search`.

    Returns:
      (settled beams [B, K] of each level 1..L in trie order, model calls of each user
      [B], whether a level's scores are not finite [L, B]).
    """
    selection = selection_of(mode)
    how = {"norm": score_norm, "temperature": temperature, "first_token": first_token(model, score_norm)}
    batch, width = prompt.tokens.shape
    layout = Layout(width, (1,) + (beams,) * (trie.length - 1))
    read = None if prompt.head is None else prompt.head.target
    cache = begin_cache(model.init_cache, batch, layout.slots, read)
    settled = root_beams(prompt, trie.length, draws=selection.draws)
    calls, everyone = jnp.zeros((batch,), jnp.int32), jnp.ones((batch,), bool)
    levels, faults = [], []
    for level in range(trie.length):
        certain = level == 0 or score_norm == "vocab"  # every user needs this call, whatever was found
        needs = everyone if certain else (settled.valid & ~is_finished(trie, level, settled, score_norm)).any(1)
        if level == 0:
            inputs = prompt_input(prompt)
        else:
            inputs = level_input(settled, level, prompt, layout, jnp.where(needs, level, trie.length))
        call = functools.partial(model, params, inputs, n_out=layout.capacity[level])
        if certain:
            logits, cache = call(cache)
        else:  # no user may need the call: then it is not made, and its logits are zeros
            silent = jax.eval_shape(call, cache)[0]
            logits, cache = jax.lax.cond(
                needs.any(), call, lambda cache, silent=silent: (jnp.zeros(silent.shape, silent.dtype), cache), cache
            )
        calls += needs
        children = score_children(trie, level, settled, logits, **how)
        settled = selection.select(trie, children, beams, prompt.keys)
        if level + 1 < trie.length:
            settled = assign_slots(settled, level + 1, layout)
        levels.append(settled)
        faults.append(not_finite(children))
    return levels, calls, jnp.stack(faults)
