"""A Hugging Face model that knows the codes: its lists against every id's score in the order of its files."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.items.index_file import SourceError
from atspeed_jax.items.tokenizer import TokenizerError
from atspeed_jax.models.hf_config import HFConfigError
from atspeed_jax.models.llama import forward
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from atspeed_jax.serving.recommender import ListsForAll, Recommender
from bases import BOS
from known_codes import CODES, INDEX, ITEMS, rows_of, write_index, write_known
from words import words_tokenizer

TEXT = PromptConfig("instruction", "the user has {items} ?", "the ")
HISTORIES = [[], [3], [5, 1, 39, 7, 7], [0, 2]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(directory, config and parameters in the order of the files)."""
    directory = tmp_path_factory.mktemp("known")
    config, params = write_known(directory / "target")
    write_known(directory / "draft", seed=1, padding=2, layers=1)
    write_index(directory / "x.index.json")
    return directory, config, params


def scores_of_all(config, params, prompt):
    """Log-probability of each item's codes behind a prompt of the tokenizer's tokens, over the whole vocabulary."""
    rows = np.array([prompt + rows_of([item]) for item in range(ITEMS)], np.int32)
    logits = forward(config, params, rows, np.ones_like(rows, bool))
    logs = jax.nn.log_softmax(logits[:, -4:-1], -1)
    return np.take_along_axis(np.asarray(logs), rows[:, -3:, None], 2)[..., 0].sum(1)


def best(config, params, prompt, k):
    """The k best scores, as beams of exact width find them: K is all ids here."""
    return np.sort(scores_of_all(config, params, prompt))[::-1][:k]


@pytest.mark.parametrize(
    ("prompt", "made"),
    [
        (PromptConfig(), lambda items: rows_of(items) or [BOS]),
        (TEXT, lambda items: [3, 4, 5, *[t for i in items for t in (*rows_of([i]), 3)][:-1], 0]),
    ],
    ids=["items", "text with token 0"],
)
@pytest.mark.parametrize("draft", [pytest.param(None, marks=pytest.mark.slow), "draft"])
def test_lists_are_those_of_every_ids_score(place, prompt, made, draft):
    directory, config, params = place
    drafted = {"draft": directory / draft} if draft else {}
    recommend = Recommender.from_hugging_face(
        directory / "target", directory / "x.index.json", k=ITEMS, prompt=prompt, history=4, batch_size=3, **drafted
    )
    found = recommend(HISTORIES)
    for items, listed, scores in zip(HISTORIES, found.items, found.scores, strict=True):
        expected = scores_of_all(config, params, made(items[-4:]))
        np.testing.assert_allclose(scores, np.sort(expected)[::-1], atol=1e-4)
        np.testing.assert_allclose(expected[listed], scores, atol=1e-4)
        assert sorted(listed) == [*range(ITEMS)]


def test_nothing_seen_and_trie_norm(place):
    directory, _, _ = place
    recommend = Recommender.from_hugging_face(
        directory / "target", directory / "x.index.json", k=5, history=4, exclude_seen=True, norm="trie"
    )
    found = recommend(HISTORIES)
    assert all(not set(items) & set(listed) for items, listed in zip(HISTORIES, found.items, strict=True))
    assert all(len(listed) == 5 for listed in found.items)


def served(directory, **fields):
    return ServedModel(ModelDirectory(directory / "target", directory / "x.index.json", **fields))


def test_two_models_of_one_fingerprint(place):
    directory, _, _ = place
    assert served(directory).fingerprint == served(directory).fingerprint
    changes = {"prompt": TEXT, "history": 4, "draft": directory / "draft"}
    others = [served(directory, **{name: value}) for name, value in changes.items()]
    assert len({one.fingerprint for one in others} | {served(directory).fingerprint}) == 4


def test_bad_input(place, tmp_path):
    directory, _, _ = place
    with pytest.raises(ValueError, match=r"history=100 items and the next one has 303 tokens, .* for 256"):
        served(directory, history=100)
    with pytest.raises(HFConfigError, match="there is no"):
        ServedModel(ModelDirectory(tmp_path, directory / "x.index.json"))
    with pytest.raises(SourceError, match=r"nothing\.json: no such file"):
        ServedModel(ModelDirectory(directory / "target", tmp_path / "nothing.json"))
    with pytest.raises(ValueError, match=r"k=61: expected a whole number from 1 to 60"):
        Recommender.from_hugging_face(directory / "target", directory / "x.index.json", k=ITEMS + 1)


def test_codes_that_the_model_does_not_know(place, tmp_path):
    directory, _, _ = place
    other = INDEX | {"0": ["<a_77>", *INDEX["0"][1:]]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(TokenizerError, match=r"has \d+ of the \d+ codes of the items as tokens, but not <a_77>"):
        ServedModel(ModelDirectory(directory / "target", tmp_path / "other.json"))
    write_known(tmp_path / "target")
    words_tokenizer().save(str(tmp_path / "target" / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="none of the index's codes as tokens: it cuts"):
        ServedModel(ModelDirectory(tmp_path / "target", directory / "x.index.json"))
    Path(tmp_path / "target" / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"there is no .*tokenizer\.json, which says which token each"):
        ServedModel(ModelDirectory(tmp_path / "target", directory / "x.index.json"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dtype", "int8", "dtype='int8': expected one of 'float32', 'bfloat16'"),
        ("norm", "x", "norm='x': expected one of 'vocab', 'trie'"),
        ("prompt", 3, "prompt=3: expected a PromptConfig, or the name of a preset"),
        ("prompt", "minionrec", "no prompt is named 'minionrec'; expected one of atspeed"),
    ],
)
def test_fields_that_are_refused(place, field, value, message):
    with pytest.raises(ValueError, match=message):
        Recommender.from_hugging_face(place[0] / "target", place[0] / "x.index.json", **{field: value})


def test_another_dtype(place):
    directory, _, _ = place
    model = served(directory, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.decoders.target_params)} == {"bfloat16"}
    assert dataclasses.replace(model.directory, dtype="float32") == served(directory).directory
    assert len(CODES) == model.catalog.items


def test_items_of_an_index_with_names_are_named(place, tmp_path):
    """Names of the index in lists, and names or numbers in histories: the same lists as by numbers."""
    directory, _, _ = place
    lines = [
        {"item_id": f"B{item:02}", "token_ids": rows_of([item]), "metadata": {"title": f"Item {item}"}}
        for item in range(ITEMS)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    served = {"k": 5, "prompt": TEXT}
    numbered = Recommender.from_hugging_face(directory / "target", directory / "x.index.json", **served)(HISTORIES)
    named = Recommender.from_hugging_face(directory / "target", tmp_path / "items.jsonl", **served)
    only = ListsForAll(allow=["B07", "B03"], exclude=["B03"])
    alone = Recommender.from_hugging_face(directory / "target", tmp_path / "items.jsonl", only=only, **served)
    assert alone([[], ["B01"]]).items == [["B07"], ["B07"]]
    expected = [[f"B{item:02}" for item in items] for items in numbered.items]
    assert named([[f"B{item:02}" for item in items] for items in HISTORIES]).items == expected
    assert named(HISTORIES) == (expected, numbered.scores)
    assert named.titles["B07"] == "Item 7"
    fresh = {"item_id": "NEW", "token_ids": [rows_of([0])[0], *rows_of([1])[1:]], "metadata": {"title": "New"}}
    gone = expected[0][0]
    kept = [line for line in lines if line["item_id"] != gone]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [fresh, *kept]))
    grown = named.with_catalog(tmp_path / "new.jsonl")
    assert grown.titles["NEW"] == "New"
    lists = grown([*HISTORIES, ["NEW", gone]]).items
    assert not {gone} & set().union(*lists)
    whole = Recommender.from_hugging_face(directory / "target", tmp_path / "new.jsonl", **served)
    at = [row for row, items in enumerate(HISTORIES) if gone not in [f"B{item:02}" for item in items]]
    named_histories = [[f"B{item:02}" for item in HISTORIES[row]] for row in at]
    assert [lists[row] for row in at] == whole(named_histories).items
