"""The weight files of a Hugging Face directory: one safetensors file, or several with
an index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

ONE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
RECOMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")  # buffers of older releases


class WeightsError(ValueError):
    """Weight files that do not hold exactly the tensors of the model."""


def stored_tensors(directory: Path) -> tuple[dict[str, tuple[Path, tuple[int, ...], str]], list[str]]:
    """Lists file, shape and dtype of each tensor, and problems; skips buffers."""
    placed, problems = _listed_files(directory)
    stored: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for path, listed in placed.items():
        try:
            with safe_open(path, "numpy") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no iterable)
                held = {name: (path, tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
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
            f"{name} is in both {stored[name][0].name} and {path.name}" for name in held.keys() & stored.keys()
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
        pickled = "; its .bin files are pickles, which are never loaded" if list(directory.glob("*.bin")) else ""
        raise WeightsError(
            f"{directory} has neither {ONE_FILE} nor {INDEX_FILE}{pickled}; save the model with "
            "save_pretrained(..., safe_serialization=True)"
        )
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
