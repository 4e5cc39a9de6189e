"""A small valid report, and a catalog with random models that decode it."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np

from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import BOS, FIRST_CODE, Catalog
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import init_params
from atspeed_jax.serving.decoders import Decoders
from bases import BASE


def decoding_row(method: str, drafter: str, k: int, calls: float, **changes) -> dict:
    """A complete decoding row of four levels."""
    speculative = method == "speculative"
    row = {
        "method": method,
        "drafter": drafter,
        "mode": "strict",
        "score_norm": "vocab",
        "K": k,
        "widths": ["all", 64, 96] if speculative else None,
        "users": 3553,
        "target_calls_mean": calls,
        "accept_steps_mean": 4 - calls,
        "one_call_share": 0.75 if speculative else 0.0,
        "acceptance_by_level": [1.0, 0.875, 0.5] if speculative else None,
        "coverage_by_level": [1.0, 0.98, 0.96] if speculative else None,
        "mismatched_users": 0 if speculative else None,
        "near_tie_users": 2 if speculative else None,
        "latency_ms_p50": 8.25,
        "latency_ms_p95": 11.5,
        "ws_vs_beam_search": 1.25 if speculative else 1.0,
        "users_per_s": 210.0,
        "target_fingerprint": "abc",
    }
    return {**row, **changes}


def small_report() -> dict:
    """A small valid report."""
    return {
        "dataset": {"name": "toy", "users": 19383, "items": 12035, "distinct_ids": 12023, "collisions": 12},
        "quality": {
            "target": {
                "seen_kept": {
                    "recall@10": 0.0175,
                    "ndcg@10": 0.0095,
                    "users": 3553,
                    "id_recall@10": 0.0185,
                    "hits": 123,
                    "truths": 7313,
                    "impossible": 0,
                },
                "seen_removed": {
                    "recall@10": 0.0177,
                    "ndcg@10": 0.0096,
                    "intervals": {"recall@10": [0.0145, 0.021], "ndcg@10": [0.0078, 0.0115]},
                    "users": 3553,
                    "id_recall@10": 0.0187,
                    "hits": 1125,
                    "truths": 7313,
                    "impossible": 45,
                },
            },
            "popularity": {
                "seen_kept": {"recall@10": 0.0079, "ndcg@10": 0.0043},
                "seen_removed": {"recall@10": 0.0089, "ndcg@10": 0.0053},
            },
            "covisitation": {
                "seen_kept": {"recall@10": 0.0181, "ndcg@10": 0.0117},
                "seen_removed": {"recall@10": 0.0191, "ndcg@10": 0.0127},
            },
            "target_fingerprint": "abc",
            "differences": {
                "target - covisitation": {
                    "seen_removed": {"recall@10": -0.0014, "intervals": {"recall@10": [-0.003, 0.001]}}
                },
            },
        },
        "decoding": [
            decoding_row("beam_search", "none", 20, 4.0),
            decoding_row("speculative", "draft", 20, 1.375),
            decoding_row("speculative", "draft", 5, 1.0625),
            decoding_row("speculative", "popularity", 20, 2.0, latency_ms_p50=None, latency_ms_p95=None),
        ],
        "environment": {"jax": "0.10.2", "device": "cpu", "cpu_count": 2, "git": None},
    }


EXAMPLES = [  # of evaluation.examples, with the title of item 3
    {
        "user": 7,
        "history": [{"item": number, "codes": [number, 0]} for number in range(10)],
        "list": [
            {"item": 3, "codes": [3, 1], "score": -1.25, "found": True, "title": "Lipstick"},
            {"item": 4, "codes": [4, 1], "score": -2.5, "found": False},
        ],
        "later": [{"item": 3, "codes": [3, 1], "title": "Lipstick"}],
    }
]


def toy_decoders(words: int = FIRST_CODE, *, tied: bool = True) -> SimpleNamespace:
    """(catalog, decoders): 7 items, 6 ids of two codes (items 4 and 5 share one), random models.

    words: tokens before the codes.
    """
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 1], [2, 1], [0, 2]])
    catalog = Catalog.from_codes(codes).behind(words, BOS)
    model = dataclasses.replace(
        BASE,
        vocab_size=catalog.vocab_size,
        hidden_size=8,
        intermediate_size=8,
        heads=1,
        tied_embeddings=tied,
    )

    @jax.jit
    def make(key):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if "scale" in jax.tree_util.keystr(path) else 15 * leaf, init_params(model, key)
        )

    target, draft = make(jax.random.key(0)), make(jax.random.key(1))
    trie = build_trie(catalog.id_tokens)
    prior = popularity_prior(trie, catalog.id_tokens, np.arange(6.0))
    prefixes, first_code = prefixes_by_norm(catalog.id_tokens), catalog.first_code
    decoders = Decoders(model, target, model, draft, trie, prior, prefixes, first_code=first_code)
    return SimpleNamespace(catalog=catalog, decoders=decoders)
