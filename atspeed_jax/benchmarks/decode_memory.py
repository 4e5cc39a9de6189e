"""Whether the cells of suite `decode` fit into the memory of a device."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from atspeed_jax.benchmarks.decode_cells import Cell, DecodeSuite, SuiteError, cells_of, config_of
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.decoding.config import prefixes_by_norm, raised_widths, resolve_widths
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.serving.decoders import computed_head, first_logit
from atspeed_jax.tuning.candidates import widest
from atspeed_jax.utils.program_memory import available_memory


def parameters(config: LlamaConfig) -> int:
    """Counts the parameters of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(param_shapes(config)))


def bytes_needed(pair: Pair, config: LlamaConfig, cell: Cell, widths: Sequence[int]) -> float:
    """Estimates the bytes that a cell needs on the device.

    Counted are both models, the target's cache, and for the call that reads prompt and
    tree the activations of one layer and the logits, with a quarter more for what
    compilation adds.

    Args:
      pair, config: the draft and the target.
      cell: batch and prompt.
      widths: drafted nodes per level.
    """
    size = jnp.dtype(config.dtype).itemsize
    models = size * (parameters(config) + parameters(pair.draft))
    slots = cell.prompt + 1 + sum(widths)
    rows = cell.batch * slots
    cache = 2 * size * config.layers * rows * config.kv_heads * config.head_dim
    computed = computed_head(config, first_logit(config, pair.first_code, pair.decode.score_norm))
    logits = 4 * cell.batch * (sum(widths) + 1) * computed.vocab_size
    wide = 2 * config.intermediate_size + 2 * config.head_dim * (config.heads + config.kv_heads)
    activations = rows * (size * wide + (4 + size) * config.heads * (cell.prompt + len(widths) + 2))
    return 1.25 * (models + cache + logits + activations)


def fitting(pair: Pair, suite: DecodeSuite, memory: float | None = None) -> tuple[list[Cell], list[str]]:
    """Splits the cells into those that fit and those that do not.

    Args:
      pair, suite: what is measured.
      memory: bytes of the device; None for what the device says.

    Returns:
      (cells, a line for each cell that is left out).

    Raises:
      WidenError: the pair's target does not fit into a shape.
      SuiteError: no cell fits; the message has all reasons.
    """
    have = available_memory() if memory is None else memory
    cells, left_out = [], []
    for cell in cells_of(suite):
        config = config_of(pair, suite, cell.shape)
        need = bytes_needed(pair, config, cell, widest_tree(pair, suite, cell.beams))
        try:
            pair.batches(cell.prompt, cell.batch, 1)
        except ValueError as error:
            left_out.append(f"{cell.title}: {error}")
            continue
        if "hf" in suite.methods:  # transformers' weights, and a copy while they are handed over
            need += 2 * parameters(config) * jnp.dtype(suite.dtype).itemsize
        if need > have:
            left_out.append(
                f"{cell.title} does not fit: it needs about {need / 2**30:.1f} GiB, the device has {have / 2**30:.1f}"
            )
        else:
            cells.append(cell)
    if not cells:
        raise SuiteError("nothing to measure: " + "; ".join(left_out))
    return cells, left_out


def widest_tree(pair: Pair, suite: DecodeSuite, beams: int) -> tuple[int, ...]:
    """Returns drafted nodes per level of the largest tree that a K may be measured with.

    Args:
      pair, suite: what is measured.
      beams: K.
    """
    prefixes = prefixes_by_norm(pair.id_tokens)[pair.decode.score_norm]
    if suite.tune and not suite.trees:
        return tuple(int(width) for width in widest(beams, pair.decode.score_norm, prefixes).widths)
    trees = [tree.widths for tree in suite.trees if tree.beams in (None, beams)] or [pair.decode.widths]

    return max((resolve_widths(raised_widths(tree, prefixes, beams), prefixes, beams) for tree in trees), key=sum)
