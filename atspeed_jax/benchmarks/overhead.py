"""What decoding costs beside its model calls, which are also timed alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.config import Mode, ScoreNorm
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.serving.decode_users import Keys
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.model_calls import timed_lists
from atspeed_jax.serving.settings import DecodeConfig, Setting


def every_mode(beams: int, decode: DecodeConfig) -> list[Setting]:
    """Returns beam search, and speculation in every mode, for each score norm."""
    settings = []
    modes_of: dict[ScoreNorm, tuple[Mode, ...]] = {
        "vocab": ("strict", "relaxed", "coupled", "relaxed_reference"),
        "trie": ("strict", "stochastic"),
    }
    for norm, modes in modes_of.items():
        strict = Setting.strict("draft", beams, dataclasses.replace(decode, score_norm=norm))
        settings += [Setting.beam_search(beams, norm), *(strict.searching(mode=mode) for mode in modes)]
    return settings


def overhead_of_modes(
    decoders: Decoders,
    dataset: Dataset,
    decode: DecodeConfig,
    evaluate: EvaluateConfig,
    *,
    history: int,
    beams: int,
    users: int,
) -> list[dict]:
    """Measures every mode on validation users, one user at a time (`measure`).

    Args:
      decoders: of a trained run.
      dataset: of the run.
      decode: how the run decodes.
      evaluate: seed, prompt lengths and repeats. All prompts are padded to the longest.
      history: items of a prompt at most.
      beams: K.
      users: number of validation users.
    """
    chosen = held_out_users(dataset, "valid").sample(users, evaluate.seed)
    batches = chosen.batches(dataset, BatchShape(history, (max(evaluate.buckets),), 1))
    keys, repeats = user_keys(evaluate.seed, chosen.users), evaluate.latency_repeats
    raised: list[str] = []
    settings = [decoders.fitted(setting, raised.append) for setting in every_mode(beams, decode)]
    print(*dict.fromkeys(raised), sep="\n", end="\n" if raised else "")
    return [measure(decoders, setting, batches, keys, repeats=repeats) for setting in settings]


def measure(decoders: Decoders, setting: Setting, batches: Sequence[dict], keys: Keys, *, repeats: int) -> dict:
    """Times whole decodes of a setting, and its model calls alone, interleaved.

    Args:
      decoders: of the setting.
      setting: how to decode.
      batches: prompts of one shape (`data.batches.prompt_batches`).
      keys: random keys of the users, for modes that draw.
      repeats: timings of each batch; their median counts.

    Returns:
      A row. ms: mean over the batches of the time of a whole decode, from tokens to
      lists on the host. calls_ms: the same of the sum of its model calls. overhead: ms
      by calls_ms.
    """
    search = setting.search
    drawn = keys if selection_of(search.mode).draws else None
    timed = list(timed_lists(decoders, setting, batches, drawn, repeats=repeats))
    whole, calls = [one.seconds for one in timed], [sum(seconds for _, seconds in one.calls) for one in timed]
    return {
        "method": setting.method,
        "mode": search.mode,
        "score_norm": search.score_norm,
        "K": search.beams,
        "widths": list(search.widths),
        "users": len(batches),
        "rounds": float(np.mean([one.rounds for one in timed])),
        "ms": 1e3 * float(np.mean(whole)),
        "calls_ms": 1e3 * float(np.mean(calls)),
        "overhead": float(np.sum(whole) / np.sum(calls)),
    }
