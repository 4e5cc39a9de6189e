"""Titles of items, which stand beside the items in reports and lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

TITLES_FILE = "titles.json"
_EXPECTED = 'expected {"0": "title of item 0", "1": ...}, items counted from 0'


class TitlesError(ValueError):
    """A file of titles that cannot be read."""


def read_titles(path: Path, items: int) -> dict[int, str]:
    """Reads the titles of items.

    Args:
      path: {"ITEM": "title"} or {"ITEM": {"title": "title", ...}} as JSON, items
        counted from 0. Items may be missing.
      items: of the catalog.

    Returns:
      {item: title}, empty if the file does not exist. Items with a blank title, or an
      object without title, are left out.

    Raises:
      TitlesError: another content; it names the file and the entry.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise TitlesError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    if not isinstance(found, dict):
        raise TitlesError(f"{path} holds a {type(found).__name__}; {_EXPECTED}")
    if found and all(isinstance(value, dict) and "title" not in value for value in found.values()):
        raise TitlesError(f"{path}: no entry has a title; {_EXPECTED}")
    return titles_in(path, found, items)


def titles_in(path: Path, entries: Mapping[str, object], items: int) -> dict[int, str]:
    """Finds the titles in the entries of a file, see `read_titles`.

    Args:
      path: of the file, for messages.
      entries: "ITEM" -> title, or an object with a title. Metadata often lack it.
      items: of the catalog.
    """
    titles = {}
    for key, value in entries.items():
        title = value.get("title") if isinstance(value, dict) else value
        if title is None:
            continue
        if type(title) in (int, float):  # such as 1984
            title = str(title)
        number = int(key) if key.isascii() and key.isdigit() and len(key) <= len(str(items)) else items
        if number >= items or str(number) != key:  # "01" would be item 1 again
            raise TitlesError(f"{path}: key {key!r} is no item 0..{items - 1}; {_EXPECTED}")
        if not isinstance(title, str):
            raise TitlesError(f"{path}: the title of item {key} is {title!r}; {_EXPECTED}")
        if any("\ud800" <= letter <= "\udfff" for letter in title):  # half a letter, which no file can hold
            raise TitlesError(f"{path}: the title of item {key}, {title!r}, is no Unicode text; {_EXPECTED}")
        if title.strip():  # metadata often has blank titles
            titles[number] = title
    return titles


def with_titles(examples: Sequence[Mapping], titles: Mapping[int, str]) -> list[dict]:
    """Examples of users (`evaluation.examples`) whose items have a "title" where one is
    known.
    """

    def titled(item: Mapping) -> dict:
        title = titles.get(item["item"])
        return dict(item) if title is None else {**item, "title": title}

    return [
        {key: [titled(item) for item in value] if isinstance(value, list) else value for key, value in example.items()}
        for example in examples
    ]
