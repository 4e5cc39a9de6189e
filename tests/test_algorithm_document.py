"""Whoever refers to a section of the method's document finds it, and the document names files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "atspeed_jax" / "decoding" / "ALGORITHM.md"
REFERENCE = re.compile(r"ALGORITHM(?:\.md)?,? sections? (\d+(?:(?:, | and )\d+)*)(?:, fact (\w))?")


def headings() -> list[str]:
    return re.findall(r"^## (.+)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def facts() -> list[str]:
    return re.findall(r"^\*\*Fact (\w):", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def without_line_breaks(source: str) -> str:
    """A source text on one line, as if comments and strings that go over several lines did not."""
    return " ".join(re.sub(r'"?\s*\n\s*(?:# |f?")?', " ", source).split())


def stray_references(source: str) -> list[str]:
    """What a source text says of the document that names no section of it, or one that the document lacks."""
    text, strays = without_line_breaks(source), []
    for at in re.finditer(r'ALGORITHM(?!\.md")', text):  # but the name of the file as a whole string
        found = REFERENCE.match(text, at.start())
        sections = re.findall(r"\d+", found[1]) if found else ["0"]
        known = all(1 <= int(number) <= len(headings()) for number in sections)
        if not known or (found[2] and found[2] not in facts()):
            strays.append(text[at.start() : at.start() + 60])
    return strays


def sources() -> list[Path]:
    return [path for folder in ("atspeed_jax", "configs", "launch", "tests") for path in (ROOT / folder).rglob("*.py")]


def test_sections_are_numbered_in_order():
    assert [heading.partition(". ")[0] for heading in headings()] == [str(n + 1) for n in range(len(headings()))]


def test_the_table_of_contents_has_every_section():
    listed = re.findall(r"^\d+\. \[(.+)\]\(#(.+)\)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    titles = [heading.partition(". ")[2] for heading in headings()]
    assert [title for title, _ in listed] == titles
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings()]
    assert [anchor for _, anchor in listed] == anchors


def test_every_reference_names_a_section():
    strays = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in sources()
        if path != Path(__file__).resolve()
        for text in stray_references(path.read_text(encoding="utf-8"))
    ]
    assert not strays, "\n".join(strays)


@pytest.mark.parametrize(
    "source",
    [
        "# ALGORITHM.md section 5.",
        "(ALGORITHM sections 1, 3 and 6)",
        "# as measured (ALGORITHM.md\n# section 7)",
        '"learns nothing (ALGORITHM.md "\n    "section 7)"',
        'DOCUMENT = "decoding/ALGORITHM.md"',
        "Source: ALGORITHM.md section 5, fact b.",
    ],
)
def test_a_reference_to_a_section_is_read(source):
    assert not stray_references(source)


@pytest.mark.parametrize(
    "source",
    ["(ALGORITHM.md section 9)", "(ALGORITHM.md sections 1 and 12)", "see ALGORITHM.md", "ALGORITHM section 5, fact d"],
)
def test_a_stray_reference_is_seen(source):
    assert len(stray_references(source)) == 1


def file_of(name: str) -> Path:
    """The file that the document calls by this name: below atspeed_jax/, or of the repository."""
    return next((path for path in (ROOT / "atspeed_jax" / name, ROOT / name) if path.is_file()), ROOT / name)


def test_files_that_the_document_names_exist():
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", DOCUMENT.read_text(encoding="utf-8")))
    assert named
    assert not [name for name in named if not file_of(name).is_file()]


def test_what_the_document_names_in_a_file_is_there():
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    named = re.findall(r"`((?:\w+/)+\w+\.py)`(?:,| \() ?`(\w+)`", text)
    assert len(named) > 4
    defined = r"^ *(?:def|class) {}\b"
    assert not [
        (name, what)
        for name, what in named
        if not re.search(defined.format(what), file_of(name).read_text(encoding="utf-8"), re.MULTILINE)
    ]
