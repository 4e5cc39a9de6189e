"""Teacher data: the target's beams for prompts of training users.

Beams are stored as trie nodes. Each group of batches is one parquet part, so an
interrupted run resumes at the next part. `complete.json` is written when all parts
exist. A prompt takes L * K int32, and with `log_probs` a float16 per child of a beam.
Whole logits are never stored. Without `log_probs`, `alignment.align` computes the
teacher's distributions again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from atspeed_jax.alignment.distributions import to_float16
from atspeed_jax.alignment.teacher_beams import aligned_beams, beam_log_probs, beam_nodes
from atspeed_jax.alignment.teacher_files import COMPLETE, check_claim, part_file, read_complete, write_part
from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.alignment.tree import TreeContext
from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.decoding.base import Prompt, ScoreNorm
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
