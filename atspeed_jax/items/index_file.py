"""The item index: a file that says which codes each item has.

*.json           {"0": ["<a_17>", "<b_3>"], ...}: item -> codes as text
                 {"0": [17, 3], ...}: item -> codes as integers
                 {"17,3": 0, ...}: codes as integers -> item
*.jsonl          {"item_id": "B01", "token_ids": [151700, 160001], "metadata": {}}
*.parquet        columns pid and sid, lists of integers; or name, title, codes and item
*.txt            <a_17><b_3> TAB title TAB item
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from atspeed_jax.items.index_formats import read_info, read_json_lines, read_parquet
from atspeed_jax.items.item_index import AS_IT_IS, EXPECTED, IndexSettings, ItemIndex, SourceError, index_of

_KEY = re.compile(r"0|[1-9][0-9]{0,17}")
_ID_KEY = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})+")
_READERS = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".txt": read_info,
}
_GAP_IN_JSON = ("entries", "Add it, or renumber the items")
_GAPS = {
    ".txt": ("lines", "Put the *.index.json of all items beside the file, or renumber the items"),
    ".parquet": ("rows", "Add it, or renumber the items"),
}


def read_index(file: Path, settings: IndexSettings = AS_IT_IS) -> ItemIndex:
    """Reads an index in one of the forms above, which the name of the file tells.

    Items are 0, 1, ... without gaps: the keys of a JSON file, the third column of a
    *.txt file, the column item of a parquet file, the lines or rows of others.

    Raises:
      SourceError: a malformed file, or a gap; it names file and entry.
    """
    index = read_index_with_gaps(file, settings)
    if index.numbers is not None:
        count, missing = len(index.codes), _first_gap(index.numbers.tolist())
        what, remedy = _GAPS.get(file.suffix.lower(), _GAP_IN_JSON)
        raise SourceError(
            f"{file}: item {missing} is missing; {count} {what} must be the items 0..{count - 1}. {remedy}."
        )
    return index


def read_index_with_gaps(file: Path, settings: IndexSettings = AS_IT_IS) -> ItemIndex:
    """Reads an index that may leave out items, as that of a catalog whose items come
    and go.

    Returns:
      The index, whose `numbers` are those of its items where items are left out.

    Raises:
      SourceError: a malformed file; it names file and entry.
    """
    if not file.is_file():
        raise SourceError(f"{file}: no such file; expected an index of the items.")
    if reader := _READERS.get(file.suffix.lower()):
        return reader(file, settings)
    by_item = _by_item(file, read_object(file))
    numbers = sorted(by_item)
    return index_of(file, [by_item[item] for item in numbers], settings, numbers)


def _first_gap(numbers: list[int]) -> int:
    """The first number 0, 1, ... that ascending `numbers` lack."""
    return next((place for place, number in enumerate(numbers) if place != number), len(numbers))


def _by_item(file: Path, entries: dict) -> dict[int, object]:
    """item -> codes."""
    if all(_ID_KEY.fullmatch(key) for key in entries) and all(type(item) is int for item in entries.values()):
        entries = _turned(file, entries)
    items: dict[int, object] = {}
    for key, codes in entries.items():
        if not _KEY.fullmatch(key):
            raise SourceError(f'{file}: key {key!r} is not an item number; keys are "0", "1", ... without gaps.')
        items[int(key)] = codes
    return items


def _turned(file: Path, entries: dict) -> dict:
    """item -> codes, of codes -> item."""
    by_item: dict[str, list[int]] = {}
    for key, item in entries.items():
        if str(item) in by_item:
            raise SourceError(f"{file}: ids {by_item[str(item)]} and [{key}] are both item {item}; an item has one id.")
        by_item[str(item)] = [int(code) for code in key.split(",")]
    return by_item


def read_object(file: Path, key: str = "item", expected: str = EXPECTED) -> dict:
    """Reads a JSON object.

    Args:
      key: what its keys are, for messages.
      expected: what the file should hold, for messages.

    Raises:
      SourceError: a file that is no JSON object or empty, or repeats a key.
    """

    def no_repeats(pairs):
        entries = dict(pairs)
        if len(entries) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise SourceError(f"{file}: {key} {twice} has two entries; keep one.")
        return entries

    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=no_repeats)
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error}); {expected}.") from error
    except (ValueError, RecursionError) as error:  # RecursionError: of lists in lists in lists
        raise SourceError(f"{file}: not a JSON text ({error}); {expected}.") from error
    if not isinstance(entries, dict) or not entries:
        raise SourceError(f"{file}: expected a non-empty JSON object, {expected}.")
    return entries
