"""README's Python runs as it is printed, on the small run instead of quickstart's."""

import re
from pathlib import Path

import numpy as np
import pytest

from small import snapshot

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "atspeed_jax/README.md")  # in a reader's order
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(document: str) -> list[str]:
    return PYTHON.findall((ROOT / document).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def printed(small_run, tmp_path_factory):
    """What the snippets leave behind, run where runs/quickstart is a trained run."""
    place = tmp_path_factory.mktemp("reader")
    (place / "runs").mkdir()
    (place / "runs" / "quickstart").symlink_to(small_run.workdir)
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for document in DOCUMENTS:
            for snippet in snippets(document):
                exec(compile(snippet, document, "exec"), names)
    return names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_shows_python(document):
    assert snippets(document)


def test_the_readme_recommends(printed):
    for history, items, scores in zip([[12, 7, 30], []], printed["found"].items, printed["found"].scores, strict=True):
        assert len(items) == len(scores) == 5
        assert not set(items) & set(history)


def test_the_decoder_alone_gives_the_list_of_plain_beam_search(printed):
    assert printed["result"].valid.all()
    np.testing.assert_array_equal(printed["result"].ids, printed["plain"].ids)
    assert (printed["result"].target_calls <= printed["plain"].target_calls).all()


def test_the_run_is_only_read(printed, small_run):
    assert "run" in printed
    assert snapshot(small_run.workdir) == small_run.files
