"""What a report says: sections, in which order, and what is left out where nothing was measured."""

import pytest

from atspeed_jax.reporting import contents
from atspeed_jax.reporting.document import Listing, Person
from atspeed_jax.reporting.tables import Table
from reports import EXAMPLES

CURVES = {"target": [{"step": 1, "split": "train", "loss": 3.0}, {"step": 2, "split": "train", "loss": 2.0}]}


@pytest.fixture
def full(report):
    """A report with everything that may be absent."""
    report["decoding"][1]["breakdown_ms"] = {"target": 6.0, "draft": 2.0, "rest": 2.0}
    run = {"command": "python -m launch.pipeline", "written": "2026-11-27 10:00:00", "commit": None}
    return report | {"config": "tiny", "examples": EXAMPLES, "run": run | {"config": {"name": "tiny"}}}


def blocks(document, kind) -> list:
    return [block for section in document.sections for block in section.blocks if isinstance(block, kind)]


def test_sections_in_reading_order(full):
    document = contents.document(full, CURVES)
    assert document.title == "Speculative beam search on toy"
    assert document.about == "19,383 users · 12,035 items · config tiny · device cpu, 2 CPU cores · 2026-11-27"
    assert [headline.label for headline in document.headlines] == ["K = 5", "K = 20"]
    assert [section.title for section in document.sections] == [
        "Speed", "Where the time goes", "Target calls", "Quality", "Example users", "Training", "In words",
        "What was run",
    ]  # fmt: skip


def test_what_was_not_measured_has_no_section(report):
    titles = [section.title for section in contents.document(report, {}).sections]
    assert titles == ["Speed", "Target calls", "Quality", "In words", "What was run"]


def test_an_example_user(full):
    (person,) = blocks(contents.document(full, {}), Person)
    assert person.name == "User 7"
    assert [entry.name for entry in person.history] == [f"item {n}" for n in range(2, 10)]  # the newest ones
    first, second = person.recommended
    assert (first.name, first.detail, first.found) == ("Lipstick", "item 3, codes 3-1, score -1.25", True)
    assert (second.name, second.detail, second.found) == ("item 4", "codes 4-1, score -2.50", False)
    assert [entry.name for entry in person.later] == ["Lipstick"]


def test_what_was_run(full):
    document = contents.document(full, {})
    (config,) = blocks(document, Listing)
    assert '"name": "tiny"' in config.text
    tables = {table.title: dict(table.rows) for table in blocks(document, Table) if len(table.header) == 2}
    assert tables["Run"] == {"command": "python -m launch.pipeline", "written": "2026-11-27 10:00:00"}
    assert tables["Environment"]["device"] == "cpu"


def test_the_share_of_everything_else(full):
    section = contents.document(full, {}).sections[1]
    assert "at most 20% of the time (K = 20, speculative, draft model)" in section.blocks[0].texts[0]


def test_notes_say_when_saved_calls_become_time(report):
    assert not any("become saved time" in note for note in contents.document(report, {}).notes)
    for row in report["decoding"]:
        row["ws_vs_beam_search"] = 0.8
    assert any("become saved time" in note for note in contents.document(report, {}).notes)
    report["decoding"][1]["tuned"] = True
    assert contents.document(report, {}).notes[-1].startswith("How to decode was chosen on validation users")
