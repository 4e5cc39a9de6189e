"""The directory of P5 and TIGER: sequential_data.txt, and an index of the items.

sequential_data.txt     user item item ..., numbers from 1 on, oldest item first
datamaps.json           {"item2id": {"B01": "1", ...}, ...}; optional
*.index.json            item -> codes, items from 0 on: item 1 of the text is "0"
"""

from __future__ import annotations

from pathlib import Path

from atspeed_jax.data.files import ReadSettings, leave_one_out, titles_of
from atspeed_jax.data.lcrec import INDEX_ENDINGS
from atspeed_jax.data.sources import Source, read_users
from atspeed_jax.items.index_file import read_index, read_object
from atspeed_jax.items.item_index import ItemIndex, SourceError

SEQUENCES, MAPS = "sequential_data.txt", "datamaps.json"


def read_p5(directory: Path, settings: ReadSettings, needs: str) -> Source:
    """Reads sequential_data.txt, whose last two items of each user are held out.

    Raises:
      SourceError: a missing or malformed file; it names file and line.
    """
    file = directory / SEQUENCES
    if not file.is_file():
        raise SourceError(f"{file}: no such file. {needs}")
    index_file = _index_file(directory, settings)
    index = read_index(index_file, settings.index)
    _check_maps(directory / MAPS, index_file, index)
    users = read_users(file, len(index.codes))
    splits = leave_one_out(users.values())
    if not any(map(len, splits["train"])):
        raise SourceError(f"{file}: no interactions at all; training needs at least one.")
    titles = titles_of(index_file.with_name(f"{index_file.name.partition('.index.')[0]}.item.json"), index)
    name = settings.dataset or directory.resolve().name
    return Source(
        name, index.codes, *splits.values(), spelling=index.spelling, titles=titles or index.titles, names=index.names
    )


def _index_file(directory: Path, settings: ReadSettings) -> Path:
    found = sorted(file for ending in INDEX_ENDINGS for file in directory.glob(f"*{ending}"))
    found = [file for file in found if settings.dataset is None or file.name.startswith(f"{settings.dataset}.")]
    if not found:
        raise SourceError(
            f"{directory}: {SEQUENCES} is there, but no ids of the items. P5 gives items numbers alone: put a "
            '<ds>.index.json beside it, {"0": ["<a_17>", "<b_3>", ...], ...}, in which "0" is the item that '
            f"{SEQUENCES} calls 1. RQ-VAE or residual k-means over texts of the items makes such ids."
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceError(f"{directory}: several indices, {names}; set config.data.dataset to the name of one.")
    return found[0]


def _check_maps(file: Path, index_file: Path, index: ItemIndex) -> None:
    """Raises SourceError if the maps count other items than the index has."""
    if not file.is_file():
        return
    items = read_object(file, "map", 'expected {"item2id": {"B01": "1", ...}, ...}').get("item2id")
    if isinstance(items, dict) and len(items) != len(index.codes):
        raise SourceError(
            f"{file}: item2id has {len(items)} items, but {index_file} has {len(index.codes)}; take both files "
            "from one dataset."
        )
