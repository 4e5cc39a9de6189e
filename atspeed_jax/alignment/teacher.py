"""Teacher data: the target's own settled beams for some prompts per training user, stored as trie nodes.

Parquet parts, one per group of batches, so that an interrupted run goes on where it stopped; `complete.json` says that
all are there. A prompt costs L * K int32, and with `log_probs` a float16 per child of a beam: whole logits are never
stored (the reference dumps 19 GB of them for Beauty). Without `log_probs`, `alignment.align` recomputes them.
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
import pyarrow as pa
from jax import Array
from jaxtyping import Int

from atspeed_jax.alignment.distributions import to_float16
from atspeed_jax.alignment.examples import teacher_examples
from atspeed_jax.alignment.teacher_files import (
    COMPLETE,
    TeacherError,
    check_claim,
    part_file,
    read_complete,
    read_part,
    remedy_of,
    write_part,
)
from atspeed_jax.alignment.tree import TreeContext, teacher_tree, tree_logits
from atspeed_jax.data.batches import Batches, BatchShape, bucket_lengths, bucketed_batches, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_rows
from atspeed_jax.decoding.base import Prompt, ScoreNorm, StepModel
from atspeed_jax.decoding.beam_search import search_levels
from atspeed_jax.decoding.children import score_children
from atspeed_jax.items.catalog import PAD
from atspeed_jax.items.trie import Trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.utils import files
from atspeed_jax.utils.distributed import agreed, barrier, gather
from atspeed_jax.utils.ranges import BatchSize, Beams, Items, Range, check_increasing, check_ranges

BATCHES_PER_PART = 16


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """What the teacher decodes. beams: K per level. prompts: at most so many per user (`teacher_examples`).

    batch_size: prompts per decode. buckets: prompt lengths in items. log_probs: store what the target thinks of the
    beams' children too, so that alignment never runs the target; pays from two epochs on.
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
class TeacherData:
    """beams [examples, L, K] int32: trie nodes, -1 for none.

    log_probs, if stored: [E] float16, each example's rows one after the other from start[i] to start[i + 1]: the
    log-softmax over the vocabulary of every child of the root and of the K beams of depth 1..L-2, in that order.
    """

    beams: np.ndarray
    log_probs: np.ndarray | None
    start: np.ndarray | None


@functools.partial(jax.jit, static_argnames=("model", "beams", "score_norm"))
def settled_nodes(model: StepModel, params, trie: Trie, prompt: Prompt, *, beams: int, score_norm: ScoreNorm):
    """Trie nodes [B, L, K] of the target's settled beams of depth 1..L, -1 where there is none."""
    levels, *_ = search_levels(model, params, trie, prompt, beams=beams, score_norm=score_norm)
    return jnp.stack([jnp.where(level.valid, level.node, -1) for level in levels], 1)


def aligned_beams(beams):
    """[B, L, K] -> [B, L-2, K]: the beams whose children a draft ever proposes, depth 1..L-2.

    The last code of an item is always the target's own choice (verification's bonus level), so what a draft thinks of
    the children of depth L-1 changes no list and no call.
    """
    return beams[:, : max(beams.shape[1] - 2, 0)]


@functools.partial(jax.jit, static_argnames=("model",))
def beam_log_probs(model: LlamaConfig, params, context: TreeContext, prompt: Prompt, beams: Int[Array, "B M K"]):
    """What the target thinks of the children of the root and of its beams [B, L-2, K], by one forward pass.

    -> log-softmax over the vocabulary and which entries exist, both [B, 1 + (L-2) K, R].
    """
    tree = teacher_tree(context, prompt, beams, jnp.full((beams.shape[0],), -1))
    logits = tree_logits(model, params, tree, None)
    levels = enumerate(tree.levels)
    found = [score_children(context.trie, level, nodes, logits[level], norm="vocab") for level, nodes in levels]
    # The last node of a level is the true next item's: none here.
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
      history, score_norm: newest items of a user that the target sees; see `SearchConfig`.
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
        histories, _ = teacher_examples(self.dataset, self.config.prompts)
        shape = BatchShape(self.history, self.config.buckets, self.config.batch_size)
        return prompt_batches(self.dataset.catalog, histories, shape)

    def decode(self, batch: Mapping, place: Callable[[Mapping], Mapping]):
        """Decodes one batch, which `place` puts where params lie.

        Returns:
          of rows that are no fillers: numbers of examples, nodes [rows, L, K], and a
          float16 array of log-probabilities per row (none if they are not stored).
        """
        placed, real = place(batch), batch["row"] >= 0
        prompt = Prompt(placed["tokens"], placed["valid"])
        how = {"beams": self.config.beams, "score_norm": self.score_norm}
        found = settled_nodes(LlamaStep(self.model), self.params, self.context.trie, prompt, **how)
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
      fingerprint: hash of what the beams come from: target, data and settings.
      about: the same by name, for messages.
      place: puts a host batch where the target's parameters lie.
      on_begin, progress: called before the first part; wraps the loop over parts (tqdm).

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


def load_teacher(directory: Path, *, fingerprint: str, about: Mapping[str, str] | None = None) -> TeacherData:
    """Beams of every example, with the log-probabilities of their children if they were stored.

    fingerprint, about: see `make_teacher`. Raises TeacherError if they are incomplete or of another target, data or
    setting, or damaged.
    """
    if not (directory / COMPLETE).exists():
        make = f"in the checkout run python -m launch.make_teacher --workdir={directory.parent}"
        raise TeacherError(f"{directory} holds no complete teacher data: {make}")
    check_claim(directory, fingerprint, about or {})
    expected, again = read_complete(directory), remedy_of(directory)
    paths = [part_file(directory, number) for number in range(expected["parts"])]
    if missing := [path.name for path in paths if not path.exists()]:
        raise TeacherError(f"{directory} lacks {', '.join(missing[:3])} of its {len(paths)} parts: {again}")
    table = pa.concat_tables([read_part(path, again) for path in paths])
    if table.num_rows != expected["prompts"]:  # rows are found by number: with one missing, all later ones are others'
        raise TeacherError(f"{directory} holds {table.num_rows} prompts of {expected['prompts']}: {again}")
    levels, beams = (int(x) for x in table.schema.metadata[b"shape"].split())
    nodes = table["nodes"].combine_chunks().flatten().to_numpy().reshape(-1, levels, beams)
    order = np.argsort(table["example"].to_numpy())
    if "log_probs" not in table.column_names:
        return TeacherData(nodes[order], None, None)
    stored = table["log_probs"].combine_chunks().take(pa.array(order))
    starts = np.asarray(stored.offsets) - stored.offsets[0].as_py()
    return TeacherData(nodes[order], stored.flatten().to_numpy(), starts)


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
    """Endless batches over the training users' prompts, with the teacher's beams.

    Args:
      prompts: prompts per user, as the teacher data have them.
      seed, rows: see `bucketed_batches`.

    Returns:
      batches[step], a function of the arguments and step: {"tokens", "valid" [B, P],
      "beams" [B, L-2, K], "list" [B, K], "next_id" [B]}, and "log_probs"
      [B, 1 + (L-2) K, R] float16 if they were stored.
    """
    histories, next_items = teacher_examples(dataset, prompts)
    histories = [items[max(0, len(items) - shape.history) :] for items in histories]
    catalog = dataset.catalog
    children = [np.diff(np.asarray(starts)) for starts in trie.row_start]
    next_id = np.where(next_items >= 0, catalog.id_of_item[np.maximum(next_items, 0)], -1).astype(np.int32)

    def collate(chosen: list[int], bucket: int) -> dict:
        tokens = prompt_rows(catalog, [histories[example] for example in chosen], bucket)
        nodes = teacher.beams[chosen]
        batch = {"tokens": tokens, "valid": tokens != PAD, "next_id": next_id[chosen]}
        batch |= {"beams": aligned_beams(nodes), "list": nodes[:, -1]}
        return batch if teacher.log_probs is None else batch | {"log_probs": _rows_of(teacher, children, chosen)}

    return bucketed_batches(
        list(range(len(histories))),
        [len(items) for items in histories],
        buckets=bucket_lengths(shape.buckets, shape.history),
        batch_size=shape.batch_size,
        seed=seed,
        collate=collate,
        rows=rows,
    )


def _rows_of(teacher: TeacherData, children: list[np.ndarray], examples: list[int]) -> np.ndarray:
    """The examples' stored log-probabilities as rows [B, 1 + (L-2) K, R], 0 where there is no child.

    children[l]: how many each node of depth l has.
    """
    beams = aligned_beams(teacher.beams[examples])
    counts = [np.broadcast_to(children[0][0], (len(examples), 1))]
    for level in range(1, beams.shape[1] + 1):
        nodes = beams[:, level - 1]
        counts.append(np.where(nodes >= 0, children[level][np.maximum(nodes, 0)], 0))
    counts = np.concatenate(counts, 1)
    rows = np.zeros((*counts.shape, max(int(level.max()) for level in children)), np.float16)
    rows[np.arange(rows.shape[-1]) < counts[..., None]] = np.concatenate(
        [teacher.log_probs[teacher.start[i] : teacher.start[i + 1]] for i in examples]  # pyright: ignore
    )
    return rows
