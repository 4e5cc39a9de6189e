"""A trained run against the independent oracle (50 test users) and Hugging Face `generate` (200), target and aligned
draft as they are on disk.

ATSPEED_RUN=runs/beauty ATSPEED_CONFIG=lcrec_small ./launch/test.sh --slow tests/test_pipeline_trained.py
"""

import dataclasses
import importlib
import os

import jax
import numpy as np
import pytest

import oracle
from atspeed_jax.benchmarks.hugging_face import same_lists, shared_model
from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.users import held_out_users
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.serving.decode_users import decode_users, prompt_of
from atspeed_jax.serving.settings import Setting
from launch.config import load
from numpy_llama import numpy_llama

USERS, BEAMS = 50, 20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ATSPEED_RUN" not in os.environ, reason="ATSPEED_RUN names no trained workdir"),
]


@pytest.fixture(scope="module")
def run():
    config = load(importlib.import_module(f"configs.{os.environ['ATSPEED_CONFIG']}").get_config(), ExperimentConfig)
    return Run(config, os.environ["ATSPEED_RUN"], None)


def batches_of(run, count):
    """The prompts of so many test users, in batches of USERS."""
    users = held_out_users(run.dataset, "test").sample(count, seed=0)
    shape = BatchShape(run.config.data.history, run.config.evaluate.buckets, USERS)
    return prompt_batches(run.dataset.catalog, users.histories, shape)


def test_trained_decoders_equal_the_oracle(run):
    config, catalog, decoders = run.config, run.dataset.catalog, run.decoders(run.draft_params)
    batches, norm = batches_of(run, USERS), run.config.decode.score_norm
    decoded = {
        name: decode_users(decoders.build(setting), batches, USERS)
        for name, setting in (
            ("plain", Setting.beam_search(BEAMS, norm)),
            ("strict", Setting.strict("draft", BEAMS, config.decode)),
        )
    }
    assert decoded["strict"].calls.mean() < catalog.length

    logits = numpy_llama(run.target_model, jax.device_get(run.target_params))
    ids = [tuple(row) for row in catalog.id_tokens.tolist()]
    number = {row: index for index, row in enumerate(ids)}
    compared = 0
    for batch in batches:
        for line, user in enumerate(batch["row"].tolist()):
            if user < 0:
                continue
            prompt = tuple(batch["tokens"][line][batch["valid"][line]].tolist())
            want = oracle.beam_search(ids, prompt, lambda tokens: logits(tokens)[-1], BEAMS, norm)
            if want.margin < 1e-4:  # a near tie: float32 may order it either way
                continue
            compared += 1
            for result in decoded.values():
                assert result.ids[user].tolist() == [number[item] for item, _ in want.items]
                np.testing.assert_allclose(result.score[user], [score for _, score in want.items], rtol=0, atol=1e-4)
    assert compared >= 0.8 * USERS


@pytest.mark.filterwarnings("ignore")  # of transformers and torch
def test_generate_gives_the_lists_of_the_trained_target(run):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    decode = dataclasses.replace(run.config.decode, score_norm="vocab", unroll=False)  # an export writes stacks
    stacked = Run(dataclasses.replace(run.config, decode=decode), os.environ["ATSPEED_RUN"], None)
    compared = 0
    with shared_model("target", stacked.decoders(None), run.dataset.catalog, decode) as model:
        search = run.decoders(None).build(Setting.beam_search(BEAMS, "vocab"))
        for batch in batches_of(run, 4 * USERS):
            real = batch["row"] >= 0
            found = search(prompt_of(batch))
            ours = jax.tree.map(lambda x: x[real] if np.ndim(x) else x, found)  # noqa: B023 (called here)
            batch = {name: values[real] for name, values in batch.items()}
            assert same_lists(model, batch, BEAMS, ours)
            compared += int(real.sum())
    assert compared == 4 * USERS
