"""Sources of interactions.

Each ends as a `Source`: item ids, and per user three lists of items split by global
time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atspeed_jax.data.simulate import SyntheticConfig, simulate
from atspeed_jax.data.split import k_core, keep_rated, renumber, sequences, split_by_time
from atspeed_jax.items.catalog import MAX_CODES, MAX_LENGTH
from atspeed_jax.items.quantize import residual_kmeans

SPLITS = ("train", "valid", "test")
_TOKEN = re.compile(r"<([A-Za-z]+)_([0-9]{1,9})>")
_NUMBER = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"0|[1-9][0-9]{0,17}")
_LAYOUT = (
    "Expected: sequential_train.txt, sequential_valid.txt, sequential_test.txt and exactly one *.json index of the "
    "items."
)


class SourceError(ValueError):
    """Raw data that cannot be read; the message names the file, the line or entry, and
    the remedy.
    """


@dataclass(frozen=True, eq=False)
class Source:
    """Interactions ready to be stored.

    Attributes:
      name: of the dataset.
      codes: [items, L] int32, the id of every item.
      train, valid, test: per user (same order in all three) an int32 array of items
        0..items-1 in time order; may be empty.
    """

    name: str
    codes: np.ndarray
    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


def read_atspeed(data_dir) -> Source:
    """Reads a directory in AtSpeed's layout: `sequential_{train,valid,test}.txt` and
    one `*.json` index.

    A line is `user item item ...`, numbers from 1 on, items in time order; a user may
    have none. The index maps item number (from 0 on) to its codes: {"0": ["<a_47>",
    "<b_103>", ...], ...}. Users keep the order of the train file. The source is named
    after the directory.

    Raises:
      SourceError: a missing or malformed file; it names file, line or entry.
    """
    directory = Path(data_dir)
    if not directory.is_dir():
        raise SourceError(
            f"{directory}: no such data directory; give --data_dir the directory that holds the data. {_LAYOUT}"
        )
    if not any(directory.iterdir()):
        raise SourceError(
            f"{directory}: the data directory is empty; put the data there or give --data_dir another. {_LAYOUT}"
        )
    files = {split: directory / f"sequential_{split}.txt" for split in SPLITS}
    for file in files.values():
        if not file.is_file():
            raise SourceError(f"{file}: no such file; all three splits are needed. {_LAYOUT}")
    indices = sorted(directory.glob("*.json"))
    if len(indices) != 1:
        found = ", ".join(index.name for index in indices) or "none"
        raise SourceError(f"{directory}: the item index must be the only *.json file there, found: {found}. {_LAYOUT}")

    codes = _read_index(indices[0])
    lines = {split: _read_users(file, len(codes)) for split, file in files.items()}
    users = list(lines["train"])
    for split in ("valid", "test"):
        if odd := lines[split].keys() ^ lines["train"].keys():
            user = min(odd)
            has, lacks = ("train", split) if user in lines["train"] else (split, "train")
            raise SourceError(
                f"{files[lacks]}: user {user} has no line here but one in {files[has].name}; every user needs a line "
                "in each of the three files (the user number alone if there are no items)."
            )
    by_split = {split: tuple(lines[split][user] for user in users) for split in SPLITS}
    if not any(len(items) for items in by_split["train"]):
        raise SourceError(f"{files['train']}: no interactions at all; training needs at least one.")
    return Source(directory.resolve().name, codes, **by_split)


def synthesize(config: SyntheticConfig) -> Source:
    """Makes the synthetic source: simulated events, filtered, split by global time, ids
    by residual k-means.

    Raises:
      SourceError: the filters or the split leave nothing to train or to test on.
    """
    events, vectors = simulate(config)
    events = k_core(keep_rated(events, config.min_rating), config.core)
    events, old_users, old_items = renumber(events)
    parts = split_by_time(events, config.valid_share, config.test_share)
    if not all(len(part) for part in parts):
        raise SourceError(
            f"synthetic source: train, valid and test are left with {[len(part) for part in parts]} events; raise "
            f"users or events, or lower core ({config.core}) or min_rating ({config.min_rating})."
        )
    codes = residual_kmeans(
        vectors[old_items],
        levels=config.levels,
        codes=config.codes_per_level,
        iterations=config.kmeans_iterations,
        seed=config.seed,
    )
    return Source("synthetic", codes, *(sequences(part, len(old_users)) for part in parts))


def _read_users(file: Path, items: int) -> dict[int, np.ndarray]:
    """user number -> items (from 0 on), in file order."""
    users: dict[int, np.ndarray] = {}
    lines: dict[int, int] = {}
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        for number, line in enumerate(text, start=1):
            fields = line.split()
            if not fields:
                continue
            for field in fields:
                if not _NUMBER.fullmatch(field):
                    raise SourceError(
                        f"{file}, line {number}: {field!r} is not a number; expected `user item item ...`, "
                        "all whole numbers from 1 on."
                    )
            user, *sequence = map(int, fields)
            if user < 1:
                raise SourceError(
                    f"{file}, line {number}: user 0, but numbers start at 1; if this file counts from 0, "
                    "add 1 to all of it."
                )
            if user in users:
                raise SourceError(
                    f"{file}, line {number}: user {user} again, first on line {lines[user]}; join the two "
                    "lines in time order."
                )
            for item in sequence:
                if not 1 <= item <= items:
                    remedy = (
                        "Correct the line or add the item to the index."
                        if item
                        else "Correct the line; if this file counts items from 0, add 1 to all of them."
                    )
                    raise SourceError(
                        f"{file}, line {number}: item {item} is unknown; the index has {items} items, written "
                        f"1..{items} in this file (index entry + 1). {remedy}"
                    )
            users[user] = np.array(sequence, np.int32) - np.int32(1)
            lines[user] = number
    return users


def _read_index(file: Path) -> np.ndarray:
    """codes [items, L] int32 of the index file."""
    entries = _parse_index(file)
    items: dict[int, list] = {}
    for key, tokens in entries.items():
        if not _KEY.fullmatch(key):
            raise SourceError(f'{file}: key {key!r} is not an item number; keys are "0", "1", ... without gaps.')
        items[int(key)] = tokens
    for item in range(len(items)):
        if item not in items:
            raise SourceError(
                f"{file}: item {item} is missing; {len(items)} entries must be the items 0..{len(items) - 1}. "
                "Add it, or renumber the items."
            )
    codes, letters, spelled = [], None, {}
    for item in range(len(items)):
        row, found = _parse_id(file, item, items[item])
        letters = letters or found
        if len(found) != len(letters):
            raise SourceError(
                f"{file}: item {item} has {len(found)} codes, item 0 has {len(letters)}; all ids must have "
                "the same length."
            )
        if found != letters:
            level = next(level for level, pair in enumerate(zip(found, letters, strict=True)) if pair[0] != pair[1])
            raise SourceError(
                f"{file}: item {item}, token {items[item][level]!r} at position {level + 1} begins with "
                f"{found[level]!r} where item 0 has {letters[level]!r}; a level has one letter, so correct the "
                "token or the order of the codes."
            )
        for position, (code, token) in enumerate(zip(row, items[item], strict=True), start=1):
            first, spelling = spelled.setdefault((position, code), (item, token))
            if token != spelling:
                raise SourceError(
                    f"{file}: item {item}, position {position}: {token!r} is the code that item {first} spells "
                    f"{spelling!r}; if they are one code, spell it one way in the whole index, else give one of them "
                    "another number."
                )
        codes.append(row)
    return np.array(codes, np.int32)


def _parse_index(file: Path) -> dict:
    """The entries of the index file. Raises SourceError for a file that is no JSON
    object, or repeats an item.
    """

    def no_repeats(pairs):
        entries = dict(pairs)
        if len(entries) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise SourceError(f"{file}: item {twice} has two entries; keep one.")
        return entries

    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=no_repeats)
    except SourceError:
        raise
    except (ValueError, RecursionError) as error:  # RecursionError: of lists in lists in lists
        raise SourceError(
            f'{file}: not a JSON text ({error}); expected {{"0": ["<a_47>", "<b_103>", ...], ...}}.'
        ) from error
    if not isinstance(entries, dict) or not entries:
        raise SourceError(f'{file}: expected a non-empty JSON object {{"0": ["<a_47>", "<b_103>", ...], ...}}.')
    return entries


def _parse_id(file: Path, item: int, tokens) -> tuple[list[int], list[str]]:
    """Codes and letters of one entry."""
    if not isinstance(tokens, list) or not 1 <= len(tokens) <= MAX_LENGTH:
        raise SourceError(
            f'{file}: item {item} has {tokens!r}; expected a list of 1 to {MAX_LENGTH} tokens such as ["<a_47>", '
            '"<b_103>"].'
        )
    codes, letters = [], []
    for position, token in enumerate(tokens, start=1):
        match = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if match is None or int(match[2]) >= MAX_CODES:
            raise SourceError(
                f"{file}: item {item}, position {position}: malformed token {token!r}; expected <letter_number> such "
                f"as <a_47>, with a number below {MAX_CODES}."
            )
        letters.append(match[1])
        codes.append(int(match[2]))
    return codes, letters
