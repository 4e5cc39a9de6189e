"""A run whose models read the paper's instruction, from Hugging Face directories to lists and exports."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import small
from atspeed_jax.data.batches import prompt_batches
from atspeed_jax.data.instructions import TEMPLATE, PromptConfig
from atspeed_jax.evaluation.decode_users import decode_users
from atspeed_jax.evaluation.decoders import plain
from atspeed_jax.evaluation.evaluate import users_with_items
from atspeed_jax.evaluation.recommend import lists_of
from atspeed_jax.experiment import PretrainedConfig
from atspeed_jax.export import export_decoder, export_hf
from atspeed_jax.items.catalog import PAD
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.pipeline import Run
from atspeed_jax.training.workdir import WorkdirError
from bases import BASE, BOS, write_base
from compilation import compile_quickly
from words import words_of

WORDS = words_of(TEMPLATE.replace("{items}", ","))
TARGET = dataclasses.replace(BASE, vocab_size=len(WORDS))
DRAFT = dataclasses.replace(TARGET, hidden_size=8, tied_embeddings=True)
LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.1, targets=("q_proj", "v_proj"))
INSTRUCTION = PromptConfig("instruction")


def with_instruction(config, place, prompt=INSTRUCTION):
    config = small.changed(small.changed(config, "train_target.shuffle", 0.0), "train_draft.shuffle", 0.0)
    models = {
        "target": PretrainedConfig(str(place / "target"), LORA),
        "draft": PretrainedConfig(str(place / "draft"), None),
    }
    return small.changed(dataclasses.replace(config, **models), "data.prompt", prompt)


@pytest.fixture(scope="module")
def trained(small_config, tmp_path_factory):
    """(config, place, run, report); place holds the bases target and draft, and run, the workdir."""
    place = tmp_path_factory.mktemp("instruction")
    for seed, (name, sizes) in enumerate({"target": TARGET, "draft": DRAFT}.items()):
        write_base(place / name, sizes, seed, WORDS, max_position_embeddings=128)
    config = with_instruction(small_config, place)
    run = Run(config, place / "run", None)
    with compile_quickly():
        return config, place, run, run.all()


def test_every_stage_ends_and_no_list_differs(trained):
    _, _, run, report = trained
    assert {row["method"] for row in report["decoding"]} == {"beam_search", "speculative"}
    for row in report["decoding"]:
        assert row["mismatched_users"] == 0 and 1 <= row["target_calls_mean"] <= 3


def text_of(catalog, item: int) -> str:
    return "".join(f"<{letter}_{code}>" for letter, code in zip("abc", catalog.codes[item].tolist(), strict=True))


def test_prompts_are_the_tokens_of_the_text(trained, tmp_path):
    """Of the tokenizer that is exported with the model, for every test user."""
    config, place, run, _ = trained
    catalog, users = run.dataset.catalog, users_with_items(run.dataset, "test")
    base = place / "target"
    export_hf(tmp_path / "out", run.target_model, run.target_params, catalog, history=4, dtype="float32", base=base)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    rows = 0
    for batch in users.batches(run.dataset, run.config.evaluate, 4, 2):
        for row, tokens in zip(batch["row"].tolist(), batch["tokens"], strict=True):
            if row >= 0:
                items = ", ".join(text_of(catalog, item) for item in users.histories[row][-4:].tolist())
                text = TEMPLATE.replace("{items}", items)
                assert tokens[tokens != PAD].tolist() == [BOS, *tokenizer.encode(text).ids]
                rows += 1
    assert rows == len(users.users)
    positions = json.loads((tmp_path / "out" / "config.json").read_text())["max_position_embeddings"]
    assert positions == max(len(batch["tokens"][0]) for batch in [batch]) + 3


def test_lists_of_users_with_and_without_a_history(trained):
    _, _, run, _ = trained
    c, histories = run.config, [np.array(items, np.int64) for items in ([], [3], [1, 2, 3, 4, 5, 6])]
    decoders, shapes = run.decoders(None), {"history": 4, "buckets": (4,), "batch_size": 2}
    items, scores = lists_of(decoders, plain(5, "vocab"), run.dataset, **shapes, exclude_seen=True)(histories)
    assert (items >= 0).all() and np.isfinite(scores).all()
    assert not any(set(row) & set(seen.tolist()) for row, seen in zip(items.tolist(), histories, strict=True))
