"""Batches of alignment: prompts of training users with the teacher's beams."""

from __future__ import annotations

import numpy as np

from atspeed_jax.alignment.teacher_beams import aligned_beams
from atspeed_jax.alignment.teacher_files import TeacherData
from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.buckets import Batches, bucket_lengths, bucketed_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_rows
from atspeed_jax.items.catalog import PAD
from atspeed_jax.items.trie import Trie


def alignment_batches(
    dataset: Dataset,
    trie: Trie,
    teacher: TeacherData,
    shape: BatchShape,
    *,
    prompts: int,
    seed: int,
    rows: np.ndarray | None = None,
) -> Batches:
    """Makes endless batches of the training users' prompts and the teacher's beams.

    `batches[step]` depends on the arguments and on step only, so a run can resume at
    any step.

    Args:
      dataset: the training users.
      trie: of the catalog.
      teacher: the teacher data.
      shape: shapes of the batches.
      prompts: prompts per user, as in `TeacherConfig`.
      seed: of the order.
      rows: see `bucketed_batches`.

    Returns:
      Dicts of "tokens" and "valid" [B, P], "beams" [B, L-2, K], "list" [B, K] (the
      beams of depth L), "next_id" [B], and "log_probs" [B, 1 + (L-2) K, R] float16 if
      the teacher stored them.
    """
    histories, next_items = teacher_prompts(dataset, prompts)
    histories = [items[max(0, len(items) - shape.history) :] for items in histories]
    catalog = dataset.catalog
    children = [np.diff(np.asarray(starts)) for starts in trie.row_start]
    next_id = np.where(next_items >= 0, catalog.id_of_item[np.maximum(next_items, 0)], -1).astype(np.int32)

    def collate(chosen: list[int], bucket: int) -> dict:
        tokens = prompt_rows(catalog, [histories[prompt] for prompt in chosen], bucket)
        nodes = teacher.beams[chosen]
        batch = {"tokens": tokens, "valid": tokens != PAD, "next_id": next_id[chosen]}
        batch |= {"beams": aligned_beams(nodes), "list": nodes[:, -1]}
        return batch if teacher.log_probs is None else batch | {"log_probs": _unpacked(teacher, children, chosen)}

    return bucketed_batches(
        list(range(len(histories))),
        [len(items) for items in histories],
        buckets=bucket_lengths(shape.buckets, shape.history),
        batch_size=shape.batch_size,
        seed=seed,
        collate=collate,
        rows=rows,
    )


def _unpacked(teacher: TeacherData, children: list[np.ndarray], prompts: list[int]) -> np.ndarray:
    """Unpacks the stored log-probabilities of some prompts.

    Args:
      teacher: the teacher data.
      children: per depth l, the number of children of every node.
      prompts: numbers of the prompts.

    Returns:
      [B, 1 + (L-2) K, R], 0 for a child that does not exist.
    """
    assert teacher.log_probs is not None, "log-probabilities are stored"
    assert teacher.start is not None, "their starts are stored with them"
    beams = aligned_beams(teacher.beams[prompts])
    counts = [np.broadcast_to(children[0][0], (len(prompts), 1))]
    for level in range(1, beams.shape[1] + 1):
        nodes = beams[:, level - 1]
        counts.append(np.where(nodes >= 0, children[level][np.maximum(nodes, 0)], 0))
    counts = np.concatenate(counts, 1)
    rows = np.zeros((*counts.shape, max(int(level.max()) for level in children)), np.float16)
    rows[np.arange(rows.shape[-1]) < counts[..., None]] = np.concatenate(
        [teacher.log_probs[teacher.start[i] : teacher.start[i + 1]] for i in prompts]
    )
    return rows
