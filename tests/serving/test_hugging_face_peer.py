"""A Qwen3 that torch and transformers have trained, taken over: its lists are those of `generate`."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import peer
from atspeed_jax.benchmarks.hugging_face import HuggingFace
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from atspeed_jax.serving.user_file import User

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # it trains for some seconds
USERS, K = 40, 20


def test_lists_of_a_trained_model(tmp_path):
    index, sequences = peer.write_data(tmp_path / "data", users=150, item_count=120)
    untrained = peer.write_model(tmp_path / "untrained", index, sequences, epochs=1)
    assert peer.write_model(tmp_path / "model", index, sequences, epochs=8) < untrained - 0.3
    numbers = json.loads((tmp_path / "model" / "tokenizer.json").read_text())["added_tokens"]
    token = {one["content"]: one["id"] for one in numbers}
    rows = np.array([[token[code] for code in codes] for codes in index])
    file = tmp_path / "data" / f"{peer.NAME}.index.json"
    model = ServedModel(ModelDirectory(tmp_path / "model", file, history=8))
    histories = [np.array(items[-9:-1]) for items in sequences[:USERS]]
    items, scores = model.lists(K)([User(n, one) for n, one in enumerate(histories)])

    width = 8 * rows.shape[1]
    tokens, valid = np.zeros((USERS, width), np.int32), np.zeros((USERS, width), bool)
    for user, one in enumerate(histories):
        flat = rows[one].reshape(-1)
        tokens[user, width - len(flat) :], valid[user, width - len(flat) :] = flat, True
    generate = HuggingFace(tmp_path / "model", np.unique(rows, axis=0), "float32")
    theirs = generate({"tokens": tokens, "valid": valid}, K, trie=True)
    for user in range(USERS):
        listed = [tuple(codes) for codes in rows[items[user]].tolist()]
        ours = dict(zip(listed, scores[user].tolist(), strict=True))  # items of one id stand side by side
        other = dict(zip(map(tuple, theirs.tokens[user].tolist()), theirs.score[user].tolist(), strict=True))
        np.testing.assert_allclose([*ours.values()], [*other.values()][: len(ours)], atol=1e-4)
        assert all(score == pytest.approx(other[codes], abs=1e-4) for codes, score in ours.items())
