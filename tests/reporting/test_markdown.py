from atspeed_jax.reporting import contents, markdown
from atspeed_jax.reporting.document import Document, Entry, Headline, Listing, Person, Section, Sentences
from atspeed_jax.reporting.tables import Table
from reports import EXAMPLES

PERSON = Person("User 7", [], [Entry("a|b", "codes 1-2", found=True), Entry("c", "")], [Entry("<b>", "")])
LISTING = Listing("Config", "```\n<b>")
BLOCKS = (Sentences(["one & two"]), Sentences(["three"], listed=True), Table("T", ["", "n"], [["x", "1"]]))


def test_a_document_line_by_line():
    section = Section("Part", [*BLOCKS, PERSON, LISTING])
    document = Document("Ti<tle", "about", [Headline("K = 5", "1.3x", "K = 5: fast.", "faster")], ["note"], [section])
    assert markdown.render(document) == (
        "# Ti&lt;tle\n\nabout\n\n- **K = 5: fast.**\n\nnote\n\n## Part\n\n"
        "one &amp; two\n\n- three\n\n### T\n\n|  | n |\n| --- | ---: |\n| x | 1 |\n\n"
        "### User 7\n\n- history, oldest first: nothing\n- recommended: **a\\|b (codes 1-2)**; c\n"
        "- chosen afterwards: &lt;b&gt;\n\n"
        "### Config\n\n``````\n```\n<b>\n``````\n"
    )


def test_headlines_stand_first_and_pictures_are_linked(report):
    document = contents.document(report | {"examples": EXAMPLES}, {})
    text = markdown.render(document)
    names = [picture.name for picture in markdown.pictures(document)]
    assert names == ["speed_up", "latency", "target_calls", "acceptance", "quality"]
    assert all(f"]({name}.png)" in text for name in names)
    assert text.index("- **K = 5: the same lists") < text.index("## Speed")
    assert "**Lipstick (item 3, codes 3-1, score -1.25)**; item 4" in text
