"""What chooses parameters equals the same figure worked out from plain searches, user by user."""

import dataclasses

import jax
import numpy as np
import pytest

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.evaluation import validate
from atspeed_jax.models.llama import LlamaStep
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.settings import Setting

HISTORY = 4


def fixed_users(run):
    config = dataclasses.replace(run.config.evaluate, batch_size=3)
    return validate.fixed_users(run.dataset, config, HISTORY, count=10, seed=0)


@pytest.fixture(scope="module")
def users(small_run):
    return fixed_users(small_run.run)


def test_fixed_users_are_validation_users_and_always_the_same(small_run, users):
    dataset = small_run.run.dataset
    again = fixed_users(small_run.run)
    np.testing.assert_array_equal(users.chosen.users, again.chosen.users)
    assert len(set(users.chosen.users.tolist())) == 10
    for user, history, truth in zip(*vars(users.chosen).values(), strict=True):
        np.testing.assert_array_equal(history, dataset.train[user])
        np.testing.assert_array_equal(truth, dataset.valid[user])


def test_list_quality_by_hand(small_run, users):
    run = small_run.run
    catalog, size = run.dataset.catalog, validate.CUT
    gains = []
    for user in users.chosen.users.tolist():
        history = run.dataset.train[user][-HISTORY:]
        tokens = np.concatenate([[1], catalog.id_tokens[catalog.id_of_item[history]].reshape(-1)]).astype(np.int32)
        prompt = Prompt(tokens[None], np.ones((1, len(tokens)), bool))
        found = beam_search(
            LlamaStep(run.target_model), run.target_params, run.trie, prompt, beams=20, score_norm="vocab"
        )
        items = [  # an id stands for all its items, the more popular first
            item
            for row in np.asarray(found.ids)[0][np.asarray(found.valid)[0]]
            for item in sorted(np.flatnonzero(catalog.id_of_item == row), key=lambda i: (-run.dataset.popularity[i], i))
        ][:size]
        truth = set(run.dataset.valid[user].tolist())
        gain = sum(1 / np.log2(2 + place) for place, item in enumerate(items) if item in truth)
        gains.append(gain / sum(1 / np.log2(2 + place) for place in range(min(size, len(truth)))))
    asked = []

    def decoder(params):
        asked.append(params)
        return run.decoders(None, target_params=params).build(Setting.beam_search(validate.BEAMS, "vocab"))

    target = jax.tree.map(lambda x: x, run.target_params)
    figures = validate.list_quality(run.dataset, users, decoder)(target)
    assert asked == [target]
    assert set(figures) == {"recall@10", "ndcg@10"}
    assert 0 < figures["ndcg@10"] == pytest.approx(np.mean(gains))


def test_target_calls_are_those_of_the_decoder_it_is_given(small_run, users):
    run, asked = small_run.run, []
    setting = Setting.strict("draft", 5, run.config.decode)

    def decoder(params):
        asked.append(params)
        return run.decoders(params).build(setting)

    draft = jax.tree.map(lambda x: x, run.draft_params)
    figures = validate.target_calls(users, decoder)(draft)
    assert asked == [draft]
    results = [run.decoders(draft).build(setting)(prompt_of(batch)) for batch in users.batches]
    real = [batch["row"] >= 0 for batch in users.batches]

    def gather(pick):
        return np.concatenate([np.asarray(pick(result))[own] for result, own in zip(results, real, strict=True)])

    calls = gather(lambda result: result.target_calls).mean()
    reached, covered = (gather(lambda r, n=name: getattr(r.round_one, n)) for name in ("reached", "coverage"))
    assert figures["target_calls"] == pytest.approx(calls)
    assert figures["accept_steps"] == pytest.approx(run.dataset.catalog.length - calls)
    for level in (1, 2):
        own = covered[reached[:, level - 1], level - 1]
        assert figures[f"coverage_{level}"] == pytest.approx(own.mean())
    assert len(figures) == 4
