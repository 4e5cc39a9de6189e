"""The lists of a served model against constrained `generate`; skipped where transformers is not installed."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from atspeed_jax.benchmarks.hugging_face import HuggingFace
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from atspeed_jax.serving.user_file import User
from hf import LIVE
from known_codes import ITEMS, rows_of, write_index, write_known_by_transformers

pytestmark = [pytest.mark.filterwarnings("ignore")]  # of transformers and torch
SLOW = pytest.mark.slow
USERS, HISTORY = 100, 4
KINDS = ("llama_untied", "qwen2", "qwen3", "mistral")
TEXT = PromptConfig("instruction", "the user has {items} ?", "the ")


def text_rows(items):
    """TEXT with these items, in the numbers of the tokenizer; 3 is "the", 0 is what it makes of "?"."""
    return [3, 4, 5, *[token for item in items for token in (*rows_of([item]), 3)][:-1], 0]


PROMPTS = {"items": (PromptConfig(), rows_of), "text": (TEXT, text_rows)}


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
    ("kind", "prompt", "beams"),
    [
        ("qwen3", "items", (20,)),
        *(pytest.param(kind, prompt, (1, 5, 20, 50), marks=SLOW) for kind in KINDS for prompt in PROMPTS),
    ],
)
def test_lists_are_those_of_constrained_generate(tmp_path, kind, prompt, beams):
    write_known_by_transformers(tmp_path / "target", eos_token_id=[1, 2], **LIVE[kind])
    write_index(tmp_path / "x.index.json")
    text, made = PROMPTS[prompt]
    model = ServedModel(ModelDirectory(tmp_path / "target", tmp_path / "x.index.json", prompt=text, history=HISTORY))
    histories, batch = prompts(made)
    rows = np.array([rows_of([item]) for item in range(ITEMS)])
    generate = HuggingFace(tmp_path / "target", np.unique(rows, axis=0), "float32")
    for k in beams:
        items, scores = model.lists(k, batch_size=25)([User(n, one) for n, one in enumerate(histories)])
        theirs = generate(batch, k, trie=True)
        np.testing.assert_allclose(scores, theirs.score, atol=1e-4)
        assert (rows[items] == theirs.tokens).all()
