"""Renders a document as one HTML file that stands alone: no network, no script."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator, Sequence
from html import escape

from atspeed_jax.reporting.document import Block, Document, Entry, Headline, Listing, Person, Section, Sentences
from atspeed_jax.reporting.page_style import STYLE
from atspeed_jax.reporting.pictures import NARROW, WIDE, Layout, Picture
from atspeed_jax.reporting.tables import Table

PHONE = "screen and (max-width: 38rem)"  # where narrow figures are shown


def render(document: Document) -> str:
    """The document as the text of an HTML file.

    Pictures lie inside as SVG, in a wide and a narrow form. Every text is escaped.
    """
    sections = list(zip(_ids(document.sections), document.sections, strict=True))
    body = [
        "<header>",
        f"<h1>{escape(document.title)}</h1>",
        f'<p class="about">{escape(document.about)}</p>',
        *_headlines(document.headlines),
        *(f'<p class="note">{escape(note)}</p>' for note in document.notes),
        "</header>",
        '<nav aria-label="Contents"><ul>',
        *(f'<li><a href="#{name}">{escape(section.title)}</a></li>' for name, section in sections),
        "</ul></nav>",
        "<main>",
        *(line for name, section in sections for line in _section(name, section)),
        "</main>",
    ]
    head = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(document.title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
    ]
    return "\n".join([*head, *body, "</body>", "</html>", ""])


def _ids(sections: Sequence[Section]) -> list[str]:
    """A different name for each section, for links."""
    names: list[str] = []
    for section in sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        names.append(f"{name}-{len(names)}" if name in names else name)
    return names


def _headlines(headlines: Sequence[Headline]) -> Iterator[str]:
    if not headlines:
        return
    yield '<ul class="headlines">'
    for one in headlines:
        label, figure = (f'<span class="{name}">{escape(getattr(one, name))}</span>' for name in ("label", "figure"))
        yield f'<li class="{one.verdict}">{label} {figure}<p>{escape(one.sentence)}</p></li>'
    yield "</ul>"


def _section(name: str, section: Section) -> Iterator[str]:
    yield f'<section id="{name}">'
    yield f"<h2>{escape(section.title)}</h2>"
    for pictured, blocks in itertools.groupby(section.blocks, lambda block: isinstance(block, Picture)):
        if pictured:  # side by side, where the page is wide enough
            yield '<div class="figures">'
        for block in blocks:
            if isinstance(block, Table):
                yield from _table(block, heading=block.title != section.title)
            else:
                yield from _block(block)
        if pictured:
            yield "</div>"
    yield "</section>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Picture():
            yield from _picture(block)
        case Sentences(texts, listed):
            tag = "li" if listed else "p"
            lines = (f"<{tag}>{escape(text)}</{tag}>" for text in texts)
            yield "\n".join(["<ul>", *lines, "</ul>"] if listed else lines)
        case Person():
            yield from _person(block)
        case Listing():
            yield f"<details><summary>{escape(block.title)}</summary><pre>{escape(block.text)}</pre></details>"


def _table(table: Table, *, heading: bool) -> Iterator[str]:
    """A table in a box that scrolls if the table is wider than the page.

    Args:
      table: a table.
      heading: whether its title stands above it.
    """
    title, words = escape(table.title), ' class="words"' if len(table.header) == 2 else ""
    if heading:
        yield f"<h3>{title}</h3>"
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table{words}>'
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    yield f"<thead><tr>{head}</tr></thead><tbody>"
    for first, *others in table.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _picture(picture: Picture) -> Iterator[str]:
    """A figure; on a phone its panels stand one below another."""
    narrow, wide, inches = _data_uri(picture, NARROW), _data_uri(picture, WIDE), picture.draw(WIDE).get_figwidth()
    kind = ' class="broad"' if inches > 1.2 * WIDE.single else ""
    image = f'<img src="{wide}" alt="{escape(picture.alternative)}" style="max-width: {round(96 * inches)}px">'
    yield f'<figure{kind}><picture><source media="{PHONE}" srcset="{narrow}">{image}</picture>'
    yield f"<figcaption>{escape(picture.caption)}</figcaption></figure>"


def _data_uri(picture: Picture, layout: Layout) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg(layout)).decode()


def _person(person: Person) -> Iterator[str]:
    lists = (
        ("History, oldest first", person.history),
        ("Recommended, best first", person.recommended),
        ("Chosen afterwards", person.later),
    )
    yield f'<div class="person"><h3>{escape(person.name)}</h3><div class="columns">'
    for title, entries in lists:
        yield f"<div><h4>{title}</h4>"
        yield "<ol>" if entries else '<p class="detail">nothing</p>'
        yield from (_entry(entry) for entry in entries)
        yield "</ol></div>" if entries else "</div>"
    yield "</div></div>"


def _entry(entry: Entry) -> str:
    mark, found = (' class="found"', " ✓") if entry.found else ("", "")
    detail = f' <span class="detail">{escape(entry.detail)}</span>' if entry.detail else ""
    return f"<li{mark}>{escape(entry.name)}{found}{detail}</li>"
