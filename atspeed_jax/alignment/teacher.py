"""Teacher data: the target's own settled beams for one prompt per training user, stored as trie nodes.

Parquet parts, one per group of batches, so that an interrupted run goes on where it stopped; `complete.json` says that
all are there. A user costs L * K int32; logits are never stored (the reference dumps 19 GB of them for Beauty),
`alignment.align` recomputes them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax import files
from atspeed_jax.data.batches import bucket_lengths, bucketed_batches, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.decoding.base import Prompt, ScoreNorm, StepModel
from atspeed_jax.decoding.beam_search import search_levels
from atspeed_jax.items.catalog import PAD
from atspeed_jax.items.trie import Trie

COMPLETE = "complete.json"
BATCHES_PER_PART = 16


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """What the teacher decodes. beams: K per level.

    batch_size: prompts per decode. buckets: prompt lengths in items.
    """

    beams: int
    batch_size: int
    buckets: tuple[int, ...]


class TeacherError(ValueError):
    """Teacher data that is missing or was made from something else."""


def next_item_examples(dataset: Dataset) -> tuple[list[np.ndarray], np.ndarray]:
    """One example per training user: (histories, next items [users]); the last train item is next, -1 for a user
    without one."""
    histories = [items[:-1] for items in dataset.train]
    return histories, np.array([items[-1] if len(items) else -1 for items in dataset.train], np.int32)


@functools.partial(jax.jit, static_argnames=("model", "beams", "score_norm"))
def settled_nodes(model: StepModel, params, trie: Trie, prompt: Prompt, *, beams: int, score_norm: ScoreNorm):
    """Trie nodes [B, L, K] of the target's settled beams of depth 1..L, -1 where there is none."""
    levels = search_levels(model, params, trie, prompt, beams=beams, score_norm=score_norm)
    return jnp.stack([jnp.where(level.valid, level.node, -1) for level in levels], 1)


def make_teacher(
    directory: Path,
    dataset: Dataset,
    model: StepModel,
    params,
    trie: Trie,
    config: TeacherConfig,
    *,
    history: int,
    score_norm: ScoreNorm,
    fingerprint: str,
    progress: Callable,
) -> None:
    """Decodes every training user's prompt and stores the beams; skips parts that are already there.

    fingerprint says what the beams come from (target, data, settings). progress wraps the loop over batches (tqdm).
    Raises TeacherError if `directory` holds teacher data of another fingerprint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _check_fingerprint(directory, fingerprint)
    if (directory / COMPLETE).exists():
        return
    histories, _ = next_item_examples(dataset)
    batches = prompt_batches(
        dataset.catalog, histories, history=history, buckets=config.buckets, batch_size=config.batch_size
    )
    parts = [batches[start : start + BATCHES_PER_PART] for start in range(0, len(batches), BATCHES_PER_PART)]
    for number, part in enumerate(progress(parts)):
        path = directory / f"part-{number:05d}.parquet"
        if path.exists():
            continue
        rows, nodes = [], []
        for batch in part:
            prompt = Prompt(jnp.asarray(batch["tokens"]), jnp.asarray(batch["valid"]))
            found = settled_nodes(model, params, trie, prompt, beams=config.beams, score_norm=score_norm)
            real = batch["row"] >= 0
            rows.append(batch["row"][real])
            nodes.append(np.asarray(found)[real])
        _write_part(path, np.concatenate(rows), np.concatenate(nodes))
    files.write_json(directory / COMPLETE, {"fingerprint": fingerprint, "users": len(histories), "parts": len(parts)})


def load_teacher(directory: Path, *, fingerprint: str) -> np.ndarray:
    """Beams of every training user, [users, L, K] int32, -1 where there is none.

    Raises TeacherError if they are incomplete or of another target, data or setting.
    """
    if not (directory / COMPLETE).exists():
        raise TeacherError(
            f"{directory} holds no complete teacher data: run launch.make_teacher with the same --config and --workdir"
        )
    _check_fingerprint(directory, fingerprint)
    table = pa.concat_tables([pq.read_table(path) for path in sorted(directory.glob("part-*.parquet"))])
    levels, beams = (int(x) for x in table.schema.metadata[b"shape"].split())
    nodes = table["nodes"].combine_chunks().flatten().to_numpy().reshape(-1, levels, beams)
    by_user = np.empty_like(nodes)
    by_user[table["user"].to_numpy()] = nodes
    return by_user


def alignment_batches(
    dataset: Dataset, beams: np.ndarray, *, history: int, buckets: tuple[int, ...], batch_size: int, seed: int
) -> grain.MapDataset:
    """Endless batches of {"tokens", "valid" [B, P], "beams" [B, L-1, K], "next_id" [B]} over the training users.

    beams [users, L, K] from `load_teacher`. Resumable like all batches: batches[step] is a function of the arguments
    and step.
    """
    histories, next_items = next_item_examples(dataset)
    histories = [items[max(0, len(items) - history) :] for items in histories]
    users = np.flatnonzero(next_items >= 0)
    catalog = dataset.catalog
    next_id = np.where(next_items >= 0, catalog.id_of_item[np.maximum(next_items, 0)], -1).astype(np.int32)

    def collate(chosen: list[int], bucket: int) -> dict:
        tokens = np.full((len(chosen), 1 + catalog.length * bucket), PAD, np.int32)
        for line, user in zip(tokens, chosen, strict=True):
            prompt = prompt_tokens(catalog, histories[user], bucket)
            line[len(line) - len(prompt) :] = prompt
        return {"tokens": tokens, "valid": tokens != PAD, "beams": beams[chosen, :-1], "next_id": next_id[chosen]}

    return bucketed_batches(
        users.tolist(),
        [len(histories[user]) for user in users],
        buckets=bucket_lengths(buckets, history),
        batch_size=batch_size,
        seed=seed,
        collate=collate,
    )


def _write_part(path: Path, users: np.ndarray, nodes: np.ndarray) -> None:
    flat = pa.array(nodes.reshape(-1).astype(np.int32))
    columns = {"user": pa.array(users, pa.int32()), "nodes": pa.FixedSizeListArray.from_arrays(flat, nodes[0].size)}
    table = pa.table(columns).replace_schema_metadata({"shape": f"{nodes.shape[1]} {nodes.shape[2]}"})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    files.write_bytes(path, sink.getvalue().to_pybytes())


def _check_fingerprint(directory: Path, fingerprint: str) -> None:
    """Claims an empty directory for the fingerprint, or makes sure that it is the one claimed before."""
    claim = directory / "fingerprint.txt"
    if not claim.exists():
        files.write_text(claim, fingerprint + "\n")
    elif (found := claim.read_text(encoding="utf-8").strip()) != fingerprint:
        raise TeacherError(
            f"{directory} holds beams of another target, data or setting ({found}, now {fingerprint}): delete it, "
            "or use another --workdir"
        )
