"""Every type of model gives the lists of `generate`; skipped where transformers is not installed."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from atspeed_jax.benchmarks.hugging_face import same_lists, shared_model
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import BOS, Catalog
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig, Setting
from bases import BASE
from numpy_llama import wide_params

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of transformers and torch
    pytest.mark.slow,
]
CATALOG = Catalog(np.random.default_rng(0).integers(0, 9, (150, 3)), (9,) * 3)
PLAIN = dataclasses.replace(
    BASE, vocab_size=CATALOG.vocab_size, hidden_size=24, intermediate_size=40, layers=2, heads=4, kv_heads=2
)
KINDS = {
    "llama": {"tied_embeddings": True},
    "llama with biases": {"attention_bias": True},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2", "head_dim": 6},
    "qwen3": {"model_type": "qwen3", "tied_embeddings": True},
}


def users(count):
    """Ragged histories of 0 to 5 items, left-padded."""
    rng = np.random.default_rng(1)
    tokens, valid = np.zeros((count, 16), np.int32), np.zeros((count, 16), bool)
    for user in range(count):
        own = [BOS, *CATALOG.tokens(rng.integers(0, CATALOG.items, user % 6)).reshape(-1)]
        tokens[user, 16 - len(own) :], valid[user, 16 - len(own) :] = own, True
    return {"tokens": tokens, "valid": valid, "row": np.arange(count)}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_a_hundred_users_are_those_of_generate(kind):
    """Short and long lists, with layers side by side as a run decodes; of speculative search, too."""
    config, trie = dataclasses.replace(PLAIN, **KINDS[kind]), build_trie(CATALOG.id_tokens)
    prior = popularity_prior(trie, CATALOG.id_tokens, np.ones(len(CATALOG.ids)))
    prefixes, params = prefixes_by_norm(CATALOG.id_tokens), wide_params(config, seed=0)
    decoders = Decoders(config, params, None, None, trie, prior, prefixes)
    batch, decode = users(100), DecodeConfig(("all", 70), 2, "vocab")
    with shared_model(kind, decoders, CATALOG, decode) as shared:
        for number in (1, 5, 20, 50):
            for setting in (Setting.beam_search(number, "vocab"), Setting.strict("popularity", number, decode)):
                ours = shared.unrolled.build(setting)(prompt_of(batch))
                assert same_lists(shared, batch, number, ours), (kind, number, setting.label)
            assert len({tuple(row) for row in np.asarray(ours.ids).tolist()}) > 5  # users differ
