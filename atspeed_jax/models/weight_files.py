"""The weight files of a Hugging Face directory: one safetensors file, or several with
an index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from atspeed_jax.models.conversion import how_to_convert

ONE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # name in a file -> NumPy's
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
RECOMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")  # buffers of older releases
PROBLEMS_SHOWN = 20
COMPARED_BYTES = 1 << 26  # of a tensor, compared at once


class WeightsError(ValueError):
    """Weight files that do not hold exactly the tensors of the model."""


class Stored(NamedTuple):
    """Where a tensor is stored.

    Attributes:
      path: of its file.
      shape: of the tensor.
      kind: its dtype, as safetensors names it.
    """

    path: Path
    shape: tuple[int, ...]
    kind: str


def tensor_files(directory: Path, expected: Mapping[str, tuple[int, ...]], *, tied: bool) -> dict[str, Path]:
    """Finds the file of each expected tensor.

    Args:
      directory: of the model.
      expected: name and shape of every tensor.
      tied: the head is the embedding. A head that is stored nevertheless must hold the
        same numbers.

    Raises:
      WeightsError: files are missing or damaged, or do not hold exactly the expected
        tensors. It names all problems.
    """
    stored, problems = stored_tensors(directory)
    if tied and HEAD in stored:
        if not _equal(stored, HEAD, EMBEDDING):
            problems.append(
                f"{HEAD} is stored although config.json ties it to the embedding (tie_word_embeddings), and differs "
                f"from {EMBEDDING}: set tie_word_embeddings to false in config.json, or remove the tensor"
            )
        del stored[HEAD]
    problems += [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is no tensor of this model" for name in stored if name not in expected]
    for name, (_, shape, kind) in stored.items():
        if name in expected and shape != expected[name]:
            problems.append(f"{name} has shape {list(shape)}, expected {list(expected[name])}")
        if name in expected and kind not in DTYPES:
            problems.append(f"{name} is stored as {kind}, expected one of {', '.join(DTYPES)}")
    if problems:
        more = [f"and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        raise WeightsError(
            f"{directory} does not hold the weights that its config.json describes: "
            + "; ".join(problems[:PROBLEMS_SHOWN] + more)
        )
    return {name: one.path for name, one in stored.items()}


def _equal(stored: Mapping[str, Stored], one: str, other: str) -> bool:
    """Whether two tensors are equal to the bit; reads a block of rows at a time."""
    if other not in stored or stored[one][1:] != stored[other][1:] or stored[one].kind not in DTYPES:
        return False
    shape = stored[one].shape
    rows = max(1, COMPARED_BYTES // max(1, 4 * int(np.prod(shape[1:]))))
    with safe_open(stored[one].path, "numpy") as first, safe_open(stored[other].path, "numpy") as second:
        slices = first.get_slice(one), second.get_slice(other)
        return all(
            len({np.ascontiguousarray(part[start : min(start + rows, shape[0])]).tobytes() for part in slices}) == 1
            for start in range(0, shape[0], rows)
        )


def stored_tensors(directory: Path) -> tuple[dict[str, Stored], list[str]]:
    """Lists file, shape and dtype of each tensor, and problems; skips buffers."""
    placed, problems = _listed_files(directory)
    stored: dict[str, Stored] = {}
    for path, listed in placed.items():
        try:
            with safe_open(path, "numpy") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no iterable)
                held = {name: Stored(path, tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
        except FileNotFoundError:
            problems.append(f"{path.name}, named by {INDEX_FILE}, is missing")
            continue
        except (SafetensorError, OSError) as error:
            problems.append(f"{path.name} is damaged or cut off ({error})")
            continue
        if listed is not None:
            problems += [f"{INDEX_FILE} puts {name} into {path.name}, which lacks it" for name in listed - held.keys()]
            problems += [
                f"{path.name} holds {name}, which {INDEX_FILE} does not put there" for name in held.keys() - listed
            ]
        problems += [
            f"{name} is in both {stored[name].path.name} and {path.name}" for name in held.keys() & stored.keys()
        ]
        stored |= held
    return {name: found for name, found in stored.items() if not RECOMPUTED.fullmatch(name)}, problems


def _listed_files(directory: Path) -> tuple[dict[Path, set[str] | None], list[str]]:
    """Lists weight files with their tensors (None without an index); and problems."""
    one, index = directory / ONE_FILE, directory / INDEX_FILE
    if one.is_file() and index.is_file():
        raise WeightsError(f"{directory} has both {ONE_FILE} and {INDEX_FILE}; remove the one that is out of date")
    if one.is_file():
        return {one: None}, []
    if not index.is_file():
        remedy = how_to_convert(directory) or "save the model with save_pretrained of transformers"
        raise WeightsError(f"{directory} has neither {ONE_FILE} nor {INDEX_FILE}; {remedy}")
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} cannot be read ({error!r}); expected a JSON object with a weight_map") from error
    files: dict[Path, set[str]] = {}
    for tensor, file in entries:
        if not isinstance(file, str):
            raise WeightsError(f"{index} puts {tensor} into {file!r}, expected the name of a file")
        files.setdefault(directory / Path(file).name, set()).add(tensor)
    return dict(files), []


def file_groups(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Groups names in order; a group holds at most `limit` bytes, or one name."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups
