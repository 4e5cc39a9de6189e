"""A trie as files: one .npy per array, mapped into memory, and a description.

The trie of a catalog of millions of items is built once and served by many processes. A
directory appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from atspeed_jax.items.trie import Trie, TrieError
from atspeed_jax.utils import files

FORMAT, VERSION = "atspeed_jax.trie", 2
DESCRIPTION = "trie.json"


def save_trie(directory: Path, trie: Trie) -> None:
    """Writes a trie into a new directory.

    Raises:
      TrieError: `directory` exists.
    """
    directory = Path(directory)
    if directory.exists():
        raise TrieError(f"{directory} exists: a stored trie is never overwritten; give another directory or remove it")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    digests = {}
    for name, array in _arrays(trie).items():
        np.save(partial / name, np.asarray(array), allow_pickle=False)
        digests[name] = _digest(partial / name)
    description = {"format": FORMAT, "version": VERSION, "row_width": list(trie.row_width), "sha256": digests}
    files.write_json(partial / DESCRIPTION, description | {"description_sha256": _digest_of(description)})
    partial.rename(directory)


def load_trie(directory: Path) -> Trie:
    """Opens the trie of `save_trie`, its arrays mapped from the files.

    Give it to `jax.device_put` once before many calls.

    Raises:
      TrieError: the directory holds no trie, a trie of another version, or files that
        are not as they were written.
    """
    directory = Path(directory)
    try:
        description = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))
        kind, version = description["format"], description["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrieError(f"{directory} holds no stored trie ({error}): save_trie makes one") from error
    if (kind, version) != (FORMAT, VERSION):
        raise TrieError(
            f"{directory} holds {kind!r} of version {version}, expected {FORMAT!r} of version {VERSION}: build the "
            "trie again and save it with this program"
        )
    # With the digest right, the keys are those that save_trie wrote.
    if description.pop("description_sha256", None) != _digest_of(description):
        raise TrieError(f"{directory / DESCRIPTION} is not as it was written (checksum): save the trie again")
    arrays = {}
    for name, digest in description["sha256"].items():
        try:
            intact = _digest(directory / name) == digest
        except OSError as error:
            raise TrieError(f"{directory / name} cannot be read ({error}): save the trie again") from error
        if not intact:
            raise TrieError(f"{directory / name} is not as it was written (checksum): save the trie again")
        arrays[name] = np.load(directory / name, mmap_mode="r", allow_pickle=False)
    width = tuple(description["row_width"])
    levels = range(len(width))
    return Trie(
        tuple(arrays[f"row_start_{level}.npy"] for level in levels),
        tuple(arrays[f"token_{level}.npy"] for level in levels),
        width,
    )


def _arrays(trie: Trie) -> dict:
    named = {f"row_start_{level}.npy": rows for level, rows in enumerate(trie.row_start)}
    return named | {f"token_{level}.npy": tokens for level, tokens in enumerate(trie.token)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(description: dict) -> str:
    """Digests the content of a description, however its JSON is laid out."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
