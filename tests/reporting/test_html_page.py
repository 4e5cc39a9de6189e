"""The structure of report.html, read with html.parser: it stands alone, and no text of the data is markup."""

import copy
import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from atspeed_jax.reporting import contents, html_page
from reports import EXAMPLES

EVIL = "<script>alert(1)</script>\"'&"
CURVES = {"target": [{"step": step, "split": "train", "loss": 1 / step} for step in range(1, 9)]}
SVG = "data:image/svg+xml;base64,"
VOID = {"meta", "img", "source", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """The elements of a page in order; `texts` is everything outside of tags."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, *tags: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture
def full(report):
    report["decoding"][1]["breakdown_ms"] = {"target": 6.0, "draft": 2.0, "rest": 2.0}
    return report | {"examples": copy.deepcopy(EXAMPLES), "run": {"config": {"name": "tiny"}}}


def page_of(report) -> tuple[str, Page]:
    text = html_page.render(contents.document(report, CURVES))
    return text, Page(text)


def test_the_page_stands_alone(full):
    text, page = page_of(full)
    assert not page.open  # every element is closed
    for attributes in (attributes for _, attributes in page.elements):
        for name in ("src", "srcset"):
            assert attributes.get(name, SVG).startswith(SVG)
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert not page.of("script", "link", "iframe", "object")
    assert not re.search(r"@import|url\(|https?://", html_page.STYLE)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert text.startswith("<!doctype html>")


def test_every_picture_has_a_text_and_two_forms(full):
    _, page = page_of(full)
    images, sources = page.of("img"), page.of("source")
    assert len(images) == len(sources) == 7
    for image, source in zip(images, sources, strict=True):
        assert len(image["alt"]) > 40
        assert source["media"].startswith("screen and (max-width")
        assert source["srcset"] != image["src"]


def test_headings_go_down_one_level_at_a_time(full):
    _, page = page_of(full)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_links_lead_somewhere(full):
    _, page = page_of(full)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"].removeprefix("#") for attributes in page.of("a")]
    assert links == ids
    assert ids[0] == "speed"


def test_wide_tables_scroll_in_a_box_with_a_name(full):
    _, page = page_of(full)
    boxes = [attributes for attributes in page.of("div") if attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.of("table")) > 4
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_a_text_of_the_data_is_never_markup(full):
    full["dataset"]["name"] = full["config"] = full["environment"]["device"] = EVIL
    full["examples"][0]["list"][0]["title"] = EVIL
    full["run"] = {"command": EVIL, "config": {"name": EVIL}}
    full["decoding"][1]["score_norm"] = EVIL
    text, page = page_of(full)
    assert not page.of("script")
    assert "<script" not in text
    shown = "".join(page.texts)
    assert shown.count(EVIL) >= 5
    assert json.dumps({"name": EVIL}, indent=1) in shown


def test_headlines_lead(full):
    text, page = page_of(full)
    assert [attributes["class"] for attributes in page.of("li") if "class" in attributes][:2] == ["faster", "faster"]
    assert text.index("K = 5: the same lists in 1.1 calls instead of 4") < text.index("<main>")


def test_a_report_of_nothing(report):
    report["decoding"] = []
    _, page = page_of(report)
    assert not page.open
    assert not [attributes for attributes in page.of("ul") if attributes.get("class") == "headlines"]
