"""A trained run against the independent oracle: 50 test users, target and aligned draft as they are on disk.

ATSPEED_RUN=runs/beauty ATSPEED_CONFIG=lcrec_small ./launch/test.sh --slow tests/test_pipeline_trained.py
"""

import importlib
import os

import jax
import numpy as np
import pytest

import oracle
from atspeed_jax.data.batches import prompt_batches
from atspeed_jax.evaluation.decode_users import decode_users
from atspeed_jax.evaluation.decoders import plain, speculative
from atspeed_jax.evaluation.evaluate import users_with_items
from atspeed_jax.experiment import ExperimentConfig
from atspeed_jax.pipeline import Run
from launch.config import load
from numpy_llama import numpy_llama

USERS, BEAMS = 50, 20


@pytest.mark.slow
@pytest.mark.skipif("ATSPEED_RUN" not in os.environ, reason="ATSPEED_RUN names no trained workdir")
def test_trained_decoders_equal_the_oracle():
    config = load(importlib.import_module(f"configs.{os.environ['ATSPEED_CONFIG']}").get_config(), ExperimentConfig)
    run = Run(config, os.environ["ATSPEED_RUN"], None)
    catalog, decoders = run.dataset.catalog, run.decoders(run.draft_params)
    users = users_with_items(run.dataset, "test").choose(USERS, seed=0)
    batches = prompt_batches(
        catalog, users.histories, history=config.data.history, buckets=config.evaluate.buckets, batch_size=USERS
    )
    norm = config.decode.score_norm
    decoded = {
        name: decode_users(decoders.build(setting), batches, USERS)
        for name, setting in (("plain", plain(BEAMS, norm)), ("strict", speculative("draft", BEAMS, config.decode)))
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
