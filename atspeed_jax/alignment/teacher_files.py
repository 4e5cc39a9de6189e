"""The files of teacher data: origin, parquet parts, and the record of their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.utils import files

COMPLETE = "complete.json"


class TeacherError(ValueError):
    """Teacher data that are missing, damaged or made from something else."""


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherData:
    """What a teacher stored.

    Attributes:
      beams: trie nodes of the beams [prompts, L, K] int32, -1 for none.
      log_probs: log-softmax over the vocabulary of every child of the root and of the K
        beams of depth 1..L-2, in that order, one prompt after another, float16; None if
        not stored.
      start: prompt i has log_probs[start[i] : start[i + 1]]; None if not stored.
    """

    beams: np.ndarray
    log_probs: np.ndarray | None
    start: np.ndarray | None


def remedy_of(directory: Path) -> str:
    """Says what to do about damaged teacher data."""
    return f"delete {directory} and run launch.make_teacher again in the checkout"


def read_complete(directory: Path) -> dict[str, int]:
    """Reads the numbers of "prompts" and "parts".

    Raises:
      TeacherError: the record is damaged.
    """
    fields = {"prompts": int, "parts": int}
    counts = files.read_json(directory / COMPLETE, remedy_of(directory), fields, error=TeacherError)
    if min(counts[name] for name in fields) < 1:
        raise TeacherError(f"{directory / COMPLETE} is damaged (it counts no prompts); {remedy_of(directory)}")
    return counts


def read_part(path: Path, remedy: str) -> pa.Table:
    """Reads a part that `write_part` wrote.

    Raises:
      TeacherError: the part is damaged; the message holds the remedy.
    """
    try:
        return pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TeacherError(f"{path} is damaged ({error}): {remedy}") from error


def part_file(directory: Path, number: int) -> Path:
    """Names the file of a part."""
    return directory / f"part-{number:05d}.parquet"


def write_part(path: Path, examples: np.ndarray, nodes: np.ndarray, log_probs: list[np.ndarray]) -> None:
    """Writes one part.

    Args:
      path: of the part.
      examples: numbers of the prompts [prompts].
      nodes: trie nodes of their beams [prompts, L, K].
      log_probs: stored log-probabilities per prompt; empty if they are not stored.
    """
    flat = pa.array(nodes.reshape(-1).astype(np.int32))
    columns = {
        "example": pa.array(examples, pa.int32()),
        "nodes": pa.FixedSizeListArray.from_arrays(flat, nodes[0].size),
    }
    if log_probs:
        offsets = np.cumsum([0] + [len(values) for values in log_probs])
        columns["log_probs"] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), np.concatenate(log_probs))
    table = pa.table(columns).replace_schema_metadata({"shape": f"{nodes.shape[1]} {nodes.shape[2]}"})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    files.write_bytes(path, sink.getvalue().to_pybytes())


def check_claim(directory: Path, fingerprint: str, about: Mapping[str, str]) -> None:
    """Claims a directory for a fingerprint, or checks the claim of before.

    Args:
      directory: of the teacher data.
      fingerprint: hash of what they are made from.
      about: the same by name, for the message.

    Raises:
      TeacherError: another fingerprint has claimed the directory.
    """
    claim, names = directory / "fingerprint.txt", directory / "made_from.json"
    if not claim.exists():
        files.write_json(names, dict(about))
        files.write_text(claim, fingerprint + "\n")
    elif (found := claim.read_text(encoding="utf-8", errors="replace").strip()) != fingerprint:
        again = remedy_of(directory)
        stored = files.read_json(names, again, error=TeacherError) if names.exists() else {}  # older data has none
        differs = [f"{name}: {stored[name]} -> {now}" for name, now in about.items() if stored.get(name, now) != now]
        raise TeacherError(
            f"{directory} holds beams of another target, data or setting "
            f"({', '.join(differs) or f'{found}, now {fingerprint}'}): delete it, or use another --workdir"
        )


def load_teacher(directory: Path, *, fingerprint: str, about: Mapping[str, str] | None = None) -> TeacherData:
    """Loads teacher data.

    Args:
      directory: of the teacher data.
      fingerprint: see `make_teacher`.
      about: see `make_teacher`.

    Raises:
      TeacherError: the data are incomplete, damaged, or of another target, dataset or
        setting.
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
    # Rows are found by position: if one is missing, all later ones belong to other
    # prompts.
    if table.num_rows != expected["prompts"]:
        raise TeacherError(f"{directory} holds {table.num_rows} prompts of {expected['prompts']}: {again}")
    levels, beams = (int(x) for x in table.schema.metadata[b"shape"].split())
    nodes = table["nodes"].combine_chunks().flatten().to_numpy().reshape(-1, levels, beams)
    order = np.argsort(table["example"].to_numpy())
    if "log_probs" not in table.column_names:
        return TeacherData(nodes[order], None, None)
    stored = table["log_probs"].combine_chunks().take(pa.array(order))
    starts = np.asarray(stored.offsets) - stored.offsets[0].as_py()
    return TeacherData(nodes[order], stored.flatten().to_numpy(), starts)
