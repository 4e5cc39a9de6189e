"""Exported decoders that have read what all prompts begin with."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.prompts import prompt_width, shared_head
from atspeed_jax.export.decoder import export_decoder
from atspeed_jax.items.catalog import BOS, Instruction
from atspeed_jax.models.llama import LlamaStep
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.model_calls import RecordingStep
from atspeed_jax.serving.settings import DecodeConfig, Setting
from reports import toy_decoders

HEAD = (BOS, 5, 6)  # what the instruction of no items has too
INSTRUCTION = Instruction((*HEAD, 7), (8,), (9, 4), (*HEAD, 3, 9, 4))
STRICT = Setting.strict("draft", 2, DecodeConfig(widths=(2,), gamma=1, score_norm="vocab"))
HISTORIES = [np.array(items, np.int32) for items in ([], [3], [6, 0], [3, 2, 1])]


def exported(directory, decoders, setting, catalog):
    """(what decoder.json says, what the arrays are, found of tokens and valid, most tokens of a model call)."""
    calls = []

    def step(config, **fields):
        return RecordingStep(LlamaStep(config, **fields), calls)

    recording = dataclasses.replace(decoders, step=step)
    export_decoder(directory, recording, setting, catalog, batch=len(HISTORIES), history=3, platforms=["cpu"])
    about = json.loads((directory / "decoder.json").read_text())
    arrays = load_file(directory / "arrays.safetensors")
    decoder = jax.export.deserialize((directory / "decoder.jax").read_bytes())
    return about, arrays, lambda tokens, valid: decoder.call(arrays, tokens, valid), max(one.tokens for one in calls)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        (STRICT, {"target", "draft"}),
        (dataclasses.replace(STRICT, drafter="popularity"), {"target"}),
        pytest.param(Setting.beam_search(2, "vocab"), {"target"}, marks=pytest.mark.slow),
    ],
    ids=["draft", "popularity", "plain"],
)
def test_lists_are_those_of_the_recommender_and_the_head_is_not_read(tmp_path, setting, kept):
    made = toy_decoders(10)
    catalog = dataclasses.replace(made.catalog, instruction=INSTRUCTION)
    headed = made.decoders.with_head(shared_head(catalog))
    (batch,) = prompt_batches(catalog, HISTORIES, BatchShape(3, (3,), len(HISTORIES)))
    expected = headed.build(setting)(prompt_of(batch))
    about, arrays, call, most = exported(tmp_path / "headed", headed, setting, catalog)
    whole_about, _, call_whole, most_whole = exported(tmp_path / "whole", made.decoders, setting, catalog)
    width = prompt_width(catalog, 3)
    assert about["shared_head"]["tokens"] == list(HEAD)
    assert "shared_head" not in whole_about
    assert most_whole - most == len(HEAD)
    assert most_whole >= width
    assert {name.split("/")[1] for name in arrays if name.startswith("head/")} == kept
    found = call(batch["tokens"], batch["valid"])
    for other in (found, call_whole(batch["tokens"], batch["valid"])):
        np.testing.assert_array_equal(other["ids"], np.where(expected.valid, expected.ids, -1))
        np.testing.assert_allclose(other["scores"], expected.score, atol=1e-5)
        np.testing.assert_array_equal(other["target_calls"], expected.target_calls)


def test_a_prompt_that_begins_otherwise_gets_no_list_and_the_others_get_theirs(tmp_path):
    made, setting = toy_decoders(10), Setting.beam_search(2, "vocab")
    catalog = dataclasses.replace(made.catalog, instruction=INSTRUCTION)
    _, _, call, _ = exported(tmp_path / "out", made.decoders.with_head(HEAD), setting, catalog)
    (batch,) = prompt_batches(catalog, HISTORIES, BatchShape(3, (3,), len(HISTORIES)))
    tokens, valid = np.array(batch["tokens"]), np.array(batch["valid"])
    right = call(tokens, valid)
    tokens[0, valid[0].argmax() + 1] += 1  # within the head
    valid[1, :-3], tokens[1, -3:] = False, HEAD  # nothing behind it
    valid[2] = False
    found = call(tokens, valid)
    assert (np.asarray(found["ids"])[:3] == -1).all()
    assert np.isnan(np.asarray(found["scores"])[:3]).all()
    assert np.asarray(found["target_calls"]).tolist() == [0, 0, 0, right["target_calls"][3]]
    np.testing.assert_array_equal(found["ids"][3], right["ids"][3])
    np.testing.assert_array_equal(found["scores"][3], right["scores"][3])
