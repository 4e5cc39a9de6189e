"""What a tree per sample saves, beside the same loss with a prompt per beam."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.alignment.align import AlignConfig, Alignment, align_loss
from atspeed_jax.alignment.tree import TreeContext, path_to
from atspeed_jax.models.llama import LlamaConfig, forward
from atspeed_jax.serving.timing import medians

SEQ_KD = AlignConfig("seq_kd", 1.0, 1.0, top_k=1, density_weight=0.0, coverage_weight=0.0, score_norm="vocab")


def copies_loss(model: LlamaConfig, params, context: TreeContext, batch):
    """Computes `losses.seq_kd` as the reference, with a prompt for every item.

    The last code is not predicted, as in `align_loss`.

    Args:
      model: the draft.
      params: of the draft.
      context: trie and shapes of the trees.
      batch: "tokens" and "valid" [B, P], "list" [B, K] (`alignment.batches`).

    Returns:
      The mean over the items of all lists.
    """
    ids = batch["list"]
    (rows, beams), drafted = ids.shape, context.trie.length - 1
    path = path_to(context, ids)
    codes = jnp.stack([context.trie.token[level][jnp.maximum(path[level], 0)] for level in range(drafted)], -1)
    codes = codes.reshape(rows * beams, drafted)

    def behind_its_prompt(prompt, codes):
        return jnp.concatenate([jnp.repeat(prompt, beams, 0), codes.astype(prompt.dtype)], 1)

    tokens = behind_its_prompt(batch["tokens"], codes[:, :-1])
    valid = behind_its_prompt(batch["valid"], jnp.ones_like(codes[:, :-1]))
    log_probs = jax.nn.log_softmax(forward(model, params, tokens, valid)[:, -drafted:], -1)
    values = -jnp.take_along_axis(log_probs, codes[..., None], -1)[..., 0].sum(-1)
    counted = ids.reshape(-1) >= 0
    return jnp.where(counted, values, 0.0).sum() / jnp.maximum(counted.sum(), 1)


def alignment_steps(
    draft: LlamaConfig, params: Any, context: TreeContext, batches: Sequence[dict], *, repeats: int
) -> list[dict]:
    """Times loss and gradient of SeqKD both ways, in turns, and reads their memory.

    Args:
      draft, params: config and parameters of the draft.
      context: trie and shapes of the trees.
      batches: of one shape. "log_probs" are not read.
      repeats: timings of each batch; their median counts.

    Returns:
      A row per way. ratio (median over the batches) and memory_ratio are to "copies".

    Raises:
      ValueError: if the two losses are not the same.
    """

    alignment = Alignment(SEQ_KD, draft, draft)

    def tree(params, batch):
        return align_loss(alignment, params, params, context, batch, None)[0]

    def copies(params, batch):
        return copies_loss(draft, params, context, batch)

    batches = [{name: jnp.asarray(x) for name, x in batch.items() if name != "log_probs"} for batch in batches]
    steps = {
        way.__name__: jax.jit(jax.value_and_grad(way)).lower(params, batches[0]).compile() for way in (copies, tree)
    }
    losses = [float(step(params, batches[0])[0]) for step in steps.values()]
    if not np.isclose(losses[0], losses[1], rtol=1e-4):
        raise ValueError(
            f"the losses differ, {losses[0]} with copies and {losses[1]} with a tree: times are not compared"
        )

    def seconds(step, batch):
        start = time.perf_counter()
        jax.block_until_ready(step(params, batch))
        return time.perf_counter() - start

    times = [
        medians({way: lambda s=step, b=batch: seconds(s, b) for way, step in steps.items()}, repeats=repeats)
        for batch in batches
    ]
    memory = {way: cast(Any, step.memory_analysis()).temp_size_in_bytes for way, step in steps.items()}
    rows, width = batches[0]["tokens"].shape
    return [
        {
            "way": way,
            "batch": rows,
            "prompt": width,
            "beams": batches[0]["list"].shape[1],
            "samples_per_s": rows / float(np.median([seconds_of[way] for seconds_of in times])),
            "temporary_mib": memory[way] / 2**20,
            "ratio": float(np.median([seconds_of["copies"] / seconds_of[way] for seconds_of in times])),
            "memory_ratio": memory[way] / memory["copies"],
        }
        for way in steps
    ]
