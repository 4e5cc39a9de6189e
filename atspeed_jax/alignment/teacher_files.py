"""The files of teacher data: what they were made from, parquet parts, and the record that all parts are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.utils import files

COMPLETE = "complete.json"


class TeacherError(ValueError):
    """Teacher data that is missing or was made from something else."""


def remedy_of(directory: Path) -> str:
    return f"delete {directory} and run launch.make_teacher again in the checkout"


def read_complete(directory: Path) -> dict[str, int]:
    """How many prompts and parts there are."""
    fields = {"prompts": int, "parts": int}
    counts = files.read_json(directory / COMPLETE, remedy_of(directory), fields, error=TeacherError)
    if min(counts[name] for name in fields) < 1:
        raise TeacherError(f"{directory / COMPLETE} is damaged (it counts no prompts); {remedy_of(directory)}")
    return counts


def read_part(path: Path, remedy: str) -> pa.Table:
    """What `write_part` wrote. Raises TeacherError with the remedy if it is damaged."""
    try:
        return pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TeacherError(f"{path} is damaged ({error}): {remedy}") from error


def part_file(directory: Path, number: int) -> Path:
    return directory / f"part-{number:05d}.parquet"


def write_part(path: Path, examples: np.ndarray, nodes: np.ndarray, log_probs: list[np.ndarray]) -> None:
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
    """Claims an empty directory for the fingerprint, or makes sure that it is the one claimed before."""
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
