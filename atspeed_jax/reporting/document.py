"""What a report says, apart from how it looks: sections of sentences, tables, pictures.

`contents` and `benchmarks.page` decide what is said. `markdown` and `html_page` render
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from atspeed_jax.reporting.pictures import Picture
from atspeed_jax.reporting.tables import Table

Verdict = Literal["faster", "alike", "slower", "wrong", "untimed"]


class Headline(NamedTuple):
    """What speculation does at one K, in one sentence.

    Attributes:
      label: what is decoded, such as "K = 5".
      figure: the speed-up, such as "1.3x"; a word where that figure says nothing.
      sentence: the whole statement, with its label.
      verdict: whether speculation pays.
    """

    label: str
    figure: str
    sentence: str
    verdict: Verdict


class Sentences(NamedTuple):
    """Sentences of a section.

    Attributes:
      texts: each a paragraph or an entry of a list.
      listed: whether they are shown as a list.
    """

    texts: Sequence[str]
    listed: bool = False


class Entry(NamedTuple):
    """An item of a history or of a recommended list.

    Attributes:
      name: title of the item, or its number.
      detail: its codes, its score; may be empty.
      found: whether the item is one that the user chose later.
    """

    name: str
    detail: str
    found: bool = False


class Person(NamedTuple):
    """An example user.

    Attributes:
      name: what the user is called.
      history: newest items, oldest first.
      recommended: the list, best item first.
      later: what the user chose afterwards.
    """

    name: str
    history: Sequence[Entry]
    recommended: Sequence[Entry]
    later: Sequence[Entry]


class Listing(NamedTuple):
    """Text as it stands, such as a config; folded away where that is possible."""

    title: str
    text: str


Block = Sentences | Table | Picture | Person | Listing


class Section(NamedTuple):
    """A part of a document under one heading."""

    title: str
    blocks: Sequence[Block]


class Document(NamedTuple):
    """A whole report.

    Attributes:
      title: of the report.
      about: a line below the title: on what, where, when.
      headlines: the first that a reader sees; may be empty.
      notes: sentences below the headlines.
      sections: the rest, in reading order. A section without blocks is left out.
    """

    title: str
    about: str
    headlines: Sequence[Headline]
    notes: Sequence[str]
    sections: Sequence[Section]
