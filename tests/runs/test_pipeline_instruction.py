"""A run whose models read the paper's instruction, from Hugging Face directories to lists and exports."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import small
from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.instructions import TEMPLATE, PromptConfig
from atspeed_jax.data.users import held_out_users
from atspeed_jax.export.decoder import export_decoder
from atspeed_jax.export.hugging_face import export_hf
from atspeed_jax.items.catalog import PAD
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.runs.experiment import PretrainedConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.serving.recommend import lists_of
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.user_file import User
from atspeed_jax.training.directory import TrainingDirectoryError
from bases import BASE, write_base
from words import words_of

pytestmark = pytest.mark.slow  # models with other tokens go the same way in test_pipeline_pretrained.py

WORDS = words_of(TEMPLATE.replace("{items}", ","))
TARGET = dataclasses.replace(BASE, vocab_size=len(WORDS))
DRAFT = dataclasses.replace(TARGET, hidden_size=8, tied_embeddings=True)
BASES = {"words": WORDS, "max_position_embeddings": 128}
LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.1, targets=("q_proj", "v_proj"))
INSTRUCTION = PromptConfig("instruction")
ONCE = {"evaluations": 1, "shuffle": 0.0}


def with_instruction(config, place, prompt=INSTRUCTION):
    """The small config with the bases in `place`, and no more work than shows that all of it works."""
    trains = {name: getattr(config, name) for name in ("train_target", "train_draft", "train_align")}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, prompt=prompt),
        target=PretrainedConfig(str(place / "target"), LORA),
        draft=PretrainedConfig(str(place / "draft"), None),
        teacher=dataclasses.replace(config.teacher, prompts=1),
        evaluate=dataclasses.replace(config.evaluate, drafters=("draft",), users=8),
        **{name: dataclasses.replace(train, epochs=1.0, **ONCE) for name, train in trains.items()},
    )


@pytest.fixture(scope="module")
def trained(small_config, tmp_path_factory):
    """(config, place, run, report); place holds the bases target and draft, and run, the workdir."""
    place = tmp_path_factory.mktemp("instruction")
    for seed, (name, sizes) in enumerate({"target": TARGET, "draft": DRAFT}.items()):
        write_base(place / name, sizes, seed, **BASES)
    config = with_instruction(small_config, place)
    run = Run(config, place / "run", None)
    return config, place, run, run.all()


def test_every_stage_ends_and_no_list_differs(trained):
    _, _, _run, report = trained
    assert {row["method"] for row in report["decoding"]} == {"beam_search", "speculative"}
    for row in report["decoding"]:
        assert row["mismatched_users"] == 0
        assert row["users"] == 8
    plainly, ours = (row["target_calls_mean"] for row in report["decoding"])
    assert 1 <= ours < plainly == 3
    head = _run.decoders(_run.draft_params).head  # which is read once
    assert tuple(head.tokens) == _run.dataset.catalog.instruction.head


def text_of(catalog, item: int) -> str:
    return "".join(f"<{letter}_{code}>" for letter, code in zip("abc", catalog.codes[item].tolist(), strict=True))


def test_prompts_are_the_tokens_of_the_text(trained, tmp_path):
    """Of the tokenizer that is exported with the model, for every test user."""
    run = trained[2]
    catalog, users = run.dataset.catalog, held_out_users(run.dataset, "test")
    base = run.base_of("target")
    export_hf(tmp_path / "out", run.target_model, run.target_params, catalog, history=4, dtype="float32", base=base)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    rows = 0
    for batch in users.batches(run.dataset, BatchShape(4, run.config.evaluate.buckets, 2)):
        for row, tokens in zip(batch["row"].tolist(), batch["tokens"], strict=True):
            if row >= 0:
                items = ", ".join(text_of(catalog, item) for item in users.histories[row][-4:].tolist())
                text = TEMPLATE.replace("{items}", items)
                assert tokens[tokens != PAD].tolist() == tokenizer.encode(text).ids
                rows += 1
    assert rows == len(users.users)
    positions = json.loads((tmp_path / "out" / "config.json").read_text())["max_position_embeddings"]
    assert positions == 128 >= batch["tokens"].shape[1] + catalog.length


HISTORIES = [np.array(items, np.int64) for items in ([], [3], [1, 2, 3, 4, 5, 6])]


def lists(run, exclude_seen=False):
    shape = BatchShape(4, (4,), 3)
    decoders = run.decoders(None)
    users = [User(row, items) for row, items in enumerate(HISTORIES)]
    return lists_of(decoders, Setting.beam_search(5, "vocab"), run.dataset, shape, exclude_seen=exclude_seen)(users)


@pytest.mark.slow
def test_lists_of_users_with_and_without_a_history(trained):
    items, scores = lists(trained[2])
    assert (items >= 0).all()
    assert np.isfinite(scores).all()
    assert len({tuple(row) for row in scores.tolist()}) == 3  # what was read matters


@pytest.mark.slow
def test_the_exported_decoder_says_how_its_prompts_are_made(trained, tmp_path):
    run, catalog = trained[2], trained[2].dataset.catalog
    setting = Setting.beam_search(5, "vocab")
    export_decoder(tmp_path / "out", run.decoders(None), setting, catalog, batch=3, history=4, platforms=["cpu"])
    about = json.loads((tmp_path / "out" / "decoder.json").read_text())
    tokens = np.full(about["arguments"]["tokens"]["shape"], about["pad"], np.int32)
    for line, items in zip(tokens, HISTORIES, strict=True):
        codes = [piece for item in items[-4:].tolist() for piece in (about["separator"], catalog.tokens(item).tolist())]
        prompt = [*about["head"], *itertools.chain(*codes[1:]), *about["tail"]] if len(items) else about["empty"]
        line[len(line) - len(prompt) :] = prompt
    exported = jax.export.deserialize((tmp_path / "out" / "decoder.jax").read_bytes())
    found = exported.call(load_file(tmp_path / "out" / "arrays.safetensors"), tokens, tokens != about["pad"])
    _, scores = lists(run)
    np.testing.assert_allclose(np.asarray(found["scores"])[:, 0], scores[:, 0], atol=1e-4)


@pytest.mark.slow
def test_what_was_seen_is_excluded(trained):
    items, _ = lists(trained[2], exclude_seen=True)
    assert not any(set(row) & set(seen.tolist()) for row, seen in zip(items.tolist(), HISTORIES, strict=True))


def test_models_trained_with_another_text_are_refused(trained):
    config, place, run, _ = trained
    other = PromptConfig("instruction", TEMPLATE.replace("describes", "appropriately describes"))
    for prompt in (other, PromptConfig()):
        with pytest.raises(TrainingDirectoryError, match="fingerprint"):
            Run(small.changed(config, "data.prompt", prompt), place / "run", None).target()
    assert Run(config, place / "run", None).stage_fingerprint("target") == run.stage_fingerprint("target")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": ()}, "there is no .*draft/tokenizer.json: an instruction is text"),
        (
            {"words": (*WORDS[:3], *WORDS[:2:-1])},
            "at position 1 of the instruction's head is 3 in .*target and 40 in .*draft: take models of one tokenizer",
        ),
        (
            {"max_position_embeddings": 60},
            r"history=4 items and the next one has 6\d tokens, but .*draft was made for 60 .*: shorten its template",
        ),
    ],
    ids=["no tokenizer", "two tokenizers", "too long"],
)
def test_what_is_no_instruction_is_refused_before_any_work(small_config, data_only, tmp_path, changes, message):
    write_base(tmp_path / "target", TARGET, **BASES)
    write_base(tmp_path / "draft", DRAFT, **BASES | changes)
    with pytest.raises(ValueError, match=message):
        Run(with_instruction(small_config, tmp_path), data_only, None).dataset  # noqa: B018


def test_settings_that_an_instruction_does_not_allow(small_config, tmp_path):
    with pytest.raises(ValueError, match="models trained from scratch know item codes alone; give the target"):
        small.changed(small_config, "data.prompt", INSTRUCTION)
    config = with_instruction(small_config, tmp_path)
    for name in ("train_target", "train_draft"):
        with pytest.raises(
            ValueError, match=rf"{name}.shuffle=0.1 with data.prompt.kind='instruction'.*set {name}.shuffle=0.0"
        ):
            small.changed(config, f"{name}.shuffle", 0.1)
