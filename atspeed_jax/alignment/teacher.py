"""Teacher data: the target's beams for prompts of training users.

Beams are stored as trie nodes. Each group of batches is one parquet part, so an
interrupted run resumes at the next part. `complete.json` is written when all parts
exist. A prompt takes L * K int32, and with `log_probs` a float16 per child of a beam.
Whole logits are never stored. Without `log_probs`, `alignment.align` computes the
teacher's distributions again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from atspeed_jax.alignment.distributions import to_float16
from atspeed_jax.alignment.teacher_files import COMPLETE, check_claim, part_file, read_complete, write_part
from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.alignment.tree import TreeContext, teacher_tree, tree_logits
from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.decoding.base import Prompt, ScoreNorm, StepModel
from atspeed_jax.decoding.beam_search import search_levels
from atspeed_jax.decoding.children import score_children
from atspeed_jax.items.trie import Trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.utils import files
from atspeed_jax.utils.distributed import agreed, barrier, gather
from atspeed_jax.utils.ranges import BatchSize, Beams, Items, Range, check_increasing, check_ranges

BATCHES_PER_PART = 16


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """Settings of the teacher.

    Attributes:
      beams: K per level.
      prompts: most prompts per user (`teacher_prompts`).
      batch_size: prompts per batch.
      buckets: prompt lengths in items.
      log_probs: also store the target's log-probabilities of the beams' children, so
        that alignment never runs the target. That pays from two epochs on.
    """

    beams: Beams
    prompts: Annotated[int, Range(1, 1_000)]
    batch_size: BatchSize
    buckets: tuple[Items, ...]
    log_probs: bool

    def __post_init__(self):
        check_ranges(self)
        check_increasing(self, "buckets")


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


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherTask:
    """What the teacher decodes.

    Attributes:
      dataset: its training users are the teacher's prompts.
      model, params: the target.
      context: what alignment reads of the trie.
      config: settings of the teacher.
      history: newest items of a user that the target sees.
      score_norm: see `SearchConfig`.
    """

    dataset: Dataset
    model: LlamaConfig
    params: Any
    context: TreeContext
    config: TeacherConfig
    history: int
    score_norm: ScoreNorm

    def batches(self) -> list[dict]:
        """Batches of all prompts, as `prompt_batches` gives them."""
        histories, _ = teacher_prompts(self.dataset, self.config.prompts)
        shape = BatchShape(self.history, self.config.buckets, self.config.batch_size)
        return prompt_batches(self.dataset.catalog, histories, shape)

    def decode(self, batch: Mapping, place: Callable[[Mapping], Mapping]):
        """Decodes one batch.

        Args:
          place: puts a host batch where params lie.

        Returns:
          of rows that are no fillers: numbers of examples, nodes [rows, L, K], and a
          float16 array of log-probabilities per row (none if they are not stored).
        """
        placed, real = place(batch), batch["row"] >= 0
        prompt = Prompt(placed["tokens"], placed["valid"])
        how = {"beams": self.config.beams, "score_norm": self.score_norm}
        found = beam_nodes(LlamaStep(self.model), self.params, self.context.trie, prompt, **how)
        nodes, log_probs = gather(found)[real], []
        if self.config.log_probs:
            values, exists = beam_log_probs(self.model, self.params, self.context, prompt, aligned_beams(found))
            values, exists = (x[real] for x in gather((values, exists)))
            log_probs = [to_float16(row[there]) for row, there in zip(values, exists, strict=True)]
        return batch["row"][real], nodes, log_probs


def make_teacher(
    directory: Path,
    task: TeacherTask,
    *,
    fingerprint: str,
    about: Mapping[str, str],
    place: Callable[[Mapping], Mapping],
    on_begin: Callable[[], object],
    progress: Callable,
) -> None:
    """Decodes the training users' prompts and stores the beams; skips parts that exist.

    Args:
      directory: where the teacher data are stored.
      task: what is decoded.
      fingerprint: hash of what the beams come from: target, data and settings.
      about: the same by name, for messages.
      place: puts a host batch where the target's parameters lie.
      on_begin: called before the first part.
      progress: wraps the loop over parts (tqdm).

    Raises:
      TeacherError: `directory` holds teacher data of another fingerprint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    check_claim(directory, fingerprint, about)
    if agreed((directory / COMPLETE).exists):
        read_complete(directory)
        return
    on_begin()
    batches = task.batches()
    parts = [batches[start : start + BATCHES_PER_PART] for start in range(0, len(batches), BATCHES_PER_PART)]
    for number, part in enumerate(progress(parts)):
        path = part_file(directory, number)
        if agreed(path.exists):
            continue
        numbers, nodes, log_probs = zip(*(task.decode(batch, place) for batch in part), strict=True)
        rows = [row for rows in log_probs for row in rows]
        write_part(path, np.concatenate(numbers), np.concatenate(nodes), rows)
    prompts = sum(int((batch["row"] >= 0).sum()) for batch in batches)
    files.write_json(directory / COMPLETE, {"fingerprint": fingerprint, "prompts": prompts, "parts": len(parts)})
    barrier("teacher")
