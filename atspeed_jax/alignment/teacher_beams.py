"""The beams that a target teaches, and its log-probabilities of their children.

Apart from `teacher`, so that alignment runs without the libraries that read a dataset.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from atspeed_jax.alignment.tree import TreeContext, teacher_tree, tree_logits
from atspeed_jax.decoding.base import Prompt, ScoreNorm, StepModel
from atspeed_jax.decoding.beam_search import search_levels
from atspeed_jax.decoding.children import score_children
from atspeed_jax.items.trie import Trie
from atspeed_jax.models.llama import LlamaConfig


@functools.partial(jax.jit, static_argnames=("model", "beams", "score_norm"))
def beam_nodes(model: StepModel, params, trie: Trie, prompt: Prompt, *, beams: int, score_norm: ScoreNorm):
    """Finds the beams of plain beam search.

    Args:
      model: the model that searches.
      params: its parameters.
      trie: of the catalog.
      prompt: the prompts [B, P].
      beams: K.
      score_norm: see `SearchConfig`.

    Returns:
      Trie nodes of the beams of depth 1..L [B, L, K], -1 for none.
    """
    levels, *_ = search_levels(model, params, trie, prompt, beams=beams, score_norm=score_norm)
    return jnp.stack([jnp.where(level.valid, level.node, -1) for level in levels], 1)


def aligned_beams(beams):
    """Takes the beams whose children a draft proposes: those of depth 1..L-2.

    The target alone chooses the last code of an item. The draft's distribution at depth
    L-1 changes no list and no number of calls.

    Args:
      beams: [B, L, K].

    Returns:
      [B, L-2, K].
    """
    return beams[:, : max(beams.shape[1] - 2, 0)]


@functools.partial(jax.jit, static_argnames=("model",))
def beam_log_probs(model: LlamaConfig, params, context: TreeContext, prompt: Prompt, beams: Int[Array, "B M K"]):
    """Scores the children of the root and of the target's beams in one forward pass.

    Args:
      model: the target.
      params: its parameters.
      context: the catalog.
      prompt: the prompts [B, P].
      beams: trie nodes [B, L-2, K], -1 for none.

    Returns:
      Log-softmax over the vocabulary, and which children exist, both
      [B, 1 + (L-2) K, R].
    """
    tree = teacher_tree(context, prompt, beams, jnp.full((beams.shape[0],), -1))
    logits = tree_logits(model, params, tree, None)
    levels = enumerate(tree.levels)
    found = [score_children(context.trie, level, nodes, logits[level], norm="vocab") for level, nodes in levels]
    # The last node of a level is that of the true next item, which is none here.
    rows = [
        (c.log_prob, c.exists) if level == 0 else (c.log_prob[:, :-1], c.exists[:, :-1])
        for level, c in enumerate(found)
    ]
    width = max(row.shape[-1] for row, _ in rows)
    return jax.tree.map(lambda *levels: jnp.concatenate([_widened(x, width) for x in levels], 1), *rows)


def _widened(x: Array, width: int) -> Array:
    return jnp.pad(x, ((0, 0), (0, 0), (0, width - x.shape[-1])))
