"""Renders a document as Markdown, with its pictures in files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atspeed_jax.reporting.document import Block, Document, Entry, Listing, Person, Section, Sentences
from atspeed_jax.reporting.pictures import Picture
from atspeed_jax.reporting.tables import Table, as_markdown, markdown_text


def render(document: Document) -> str:
    """The document as the text of a Markdown file.

    Pictures are linked: they are expected as NAME.png beside the file (`pictures`).
    """
    head = [f"# {markdown_text(document.title)}\n", f"{markdown_text(document.about)}\n"]
    head += [f"- **{markdown_text(one.sentence)}**" for one in document.headlines] + [""]
    head += [f"{markdown_text(note)}\n" for note in document.notes]
    return "\n".join([*head, *(part for section in document.sections for part in _section(section))])


def pictures(document: Document) -> list[Picture]:
    """Every picture of a document, in reading order."""
    return [block for section in document.sections for block in section.blocks if isinstance(block, Picture)]


def _section(section: Section) -> Iterator[str]:
    yield f"## {markdown_text(section.title)}\n"
    for block in section.blocks:
        yield _block(block)


def _block(block: Block) -> str:
    match block:
        case Table():
            return as_markdown(block, level=3)
        case Picture():
            return f"![{markdown_text(block.caption)}]({block.name}.png)\n"
        case Sentences():
            start, end = ("- ", "") if block.listed else ("", "\n")
            return "\n".join(f"{start}{markdown_text(text)}{end}" for text in block.texts) + ("\n" * block.listed)
        case Person():
            rows = [("history, oldest first", block.history), ("recommended", block.recommended)]
            rows += [("chosen afterwards", block.later)]
            lines = [f"- {name}: {_entries(entries)}" for name, entries in rows]
            return "\n".join([f"### {markdown_text(block.name)}\n", *lines, ""])
        case Listing():
            fence = "`" * (3 + max((len(run) for run in block.text.split() if set(run) == {"`"}), default=0))
            return f"### {markdown_text(block.title)}\n\n{fence}\n{block.text}\n{fence}\n"


def _entries(entries: Sequence[Entry]) -> str:
    """The entries in one line; found ones are bold."""
    texts = [f"{entry.name} ({entry.detail})" if entry.detail else entry.name for entry in entries]
    shown = [markdown_text(text) for text in texts]
    bold = [f"**{text}**" if entry.found else text for text, entry in zip(shown, entries, strict=True)]
    return "; ".join(bold) or "nothing"
