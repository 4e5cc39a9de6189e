"""The lists of a served model against constrained `generate`; skipped where transformers is not installed."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from atspeed_jax.benchmarks.hugging_face import HuggingFace
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from atspeed_jax.serving.user_file import User
from known_codes import ITEMS, rows_of, write_index, write_known

pytestmark = [pytest.mark.filterwarnings("ignore")]  # of transformers and torch
SLOW = pytest.mark.slow
USERS, HISTORY = 100, 4
TEXT = PromptConfig("instruction", "the user has {items} ?", "the ")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("known")
    write_known(directory / "target", layers=2)
    write_index(directory / "x.index.json")
    return directory


def prompts(made):
    """Histories of 1 to 6 items, and their left-padded prompts in the tokenizer's numbers."""
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, ITEMS, 1 + user % 6) for user in range(USERS)]
    rows = [made(items[-HISTORY:].tolist()) for items in histories]
    width = max(map(len, rows))
    tokens, valid = np.zeros((USERS, width), np.int32), np.zeros((USERS, width), bool)
    for user, row in enumerate(rows):
        tokens[user, width - len(row) :], valid[user, width - len(row) :] = row, True
    return histories, {"tokens": tokens, "valid": valid}


@pytest.mark.parametrize(
    "beams", [1, pytest.param(5, marks=pytest.mark.slow), 20, pytest.param(40, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("prompt", "made"),
    [
        (PromptConfig(), rows_of),
        pytest.param(
            TEXT,
            lambda items: [3, 4, 5, *[t for i in items for t in (*rows_of([i]), 3)][:-1], 0],
            marks=SLOW,
        ),
    ],
    ids=["items", "text"],
)
def test_lists_are_those_of_constrained_generate(place, beams, prompt, made):
    model = ServedModel(ModelDirectory(place / "target", place / "x.index.json", prompt=prompt, history=HISTORY))
    histories, batch = prompts(made)
    items, scores = model.lists(beams, batch_size=25)([User(n, one) for n, one in enumerate(histories)])
    rows = np.array([rows_of([item]) for item in range(ITEMS)])
    theirs = HuggingFace(place / "target", np.unique(rows, axis=0), "float32")(batch, beams, trie=True)
    np.testing.assert_allclose(scores, theirs.score, atol=1e-4)
    same = (rows[items] == theirs.tokens).all((1, 2))
    # Where lists differ, scores that are equal but for rounding have changed places.
    gaps = np.diff(theirs.score, axis=1)
    assert all((np.abs(gaps[user]) < 1e-5).any() for user in np.flatnonzero(~same))
    assert same.mean() > 0.95
