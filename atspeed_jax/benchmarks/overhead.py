"""What decoding costs beside its model calls, which are also timed alone."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.base import Prompt, StepModel
from atspeed_jax.decoding.config import Mode, ScoreNorm
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.serving.decode_users import Keys, prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.serving.timing import medians, run_once
from atspeed_jax.shapes import SlotMask


@dataclasses.dataclass(frozen=True)
class ModelCall:
    """The shapes of one model call.

    Attributes:
      config: of the model.
      batch: B users.
      tokens: T tokens per user.
      prompt: P prompt slots.
      path: entries of a path.
      slots: S slots of the cache.
      n_out: tokens whose logits are computed.
      unrolled: whether the layers lie side by side.
    """

    config: LlamaConfig
    batch: int
    tokens: int
    prompt: int
    path: int
    slots: int
    n_out: int
    unrolled: bool


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingStep:
    """A Llama that notes the shapes of its calls while they are traced.

    It equals only itself, so it is always traced anew.
    """

    model: LlamaStep
    calls: list[ModelCall]

    def init_cache(self, batch: int, slots: int):
        return self.model.init_cache(batch, slots)

    def __call__(self, params, tokens, positions, slots, mask, cache, *, n_out):
        self.calls.append(
            ModelCall(
                config=self.model.config,
                batch=tokens.shape[0],
                tokens=tokens.shape[1],
                prompt=mask.prompt.shape[-1],
                path=mask.path.shape[-1],
                slots=jax.tree.leaves(cache)[0].shape[-3],
                n_out=n_out,
                unrolled=self.model.unrolled,
            )
        )
        return self.model(params, tokens, positions, slots, mask, cache, n_out=n_out)


def traced_calls(decoders: Decoders, setting: Setting, prompt: Prompt) -> tuple[list[ModelCall], list[ModelCall]]:
    """Returns the different model calls of round 1, and those of a later round.

    Plain beam search makes another call in every round; all of them count as of round
    1.
    """
    calls: list[ModelCall] = []

    def step(config: LlamaConfig) -> StepModel:
        return RecordingStep(cast(LlamaStep, decoders.step(config)), calls)

    jax.eval_shape(dataclasses.replace(decoders, step=step).build(setting), prompt)
    different = list(dict.fromkeys(calls))
    if setting.method == "beam_search":
        return different, []
    first = 1 + next(number for number, call in enumerate(different) if call.config == decoders.target)
    return different[:first], different[first:]


def calls_of(setting: Setting, rounds: int, first: Sequence[ModelCall], later: Sequence[ModelCall]) -> list[ModelCall]:
    """Returns the calls of a decode with `rounds` rounds, see `traced_calls`."""
    if setting.method == "beam_search":
        return list(first[:rounds])
    return [*first, *itertools.chain(*itertools.repeat(later, rounds - 1))]


def timed_call(call: ModelCall, params: Any) -> Callable[[], float]:
    """Returns a function that makes such a call alone and returns its seconds.

    The cache is written in place, as in a decoder.
    """
    model = LlamaStep(call.config, call.unrolled)
    step = jax.jit(functools.partial(model, n_out=call.n_out), donate_argnums=5)
    tokens = jnp.zeros((call.batch, call.tokens), jnp.int32)
    slots = jnp.broadcast_to(jnp.arange(call.tokens, dtype=jnp.int32) % call.slots, tokens.shape)
    path = jnp.full((*tokens.shape, call.path), call.prompt, jnp.int32)
    mask = SlotMask(jnp.ones((*tokens.shape, call.prompt), bool), path)
    caches = [model.init_cache(call.batch, call.slots)]

    def run() -> float:
        start = time.perf_counter()
        logits, cache = step(params, tokens, tokens, slots, mask, caches.pop())
        jax.block_until_ready(logits)
        seconds = time.perf_counter() - start
        caches.append(cache)
        return seconds

    return run


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
    search, built = setting.search, decoders.build(setting)
    drawn = keys if selection_of(search.mode).draws else None
    first, later = traced_calls(decoders, setting, prompt_of(batches[0], drawn))
    params = {decoders.draft: decoders.draft_params, decoders.target: decoders.target_params}
    alone = {call: timed_call(call, params[call.config]) for call in (*first, *later)}
    medians(alone, repeats=1)  # compiles
    rounds = [int(built(prompt_of(batch, drawn)).rounds) for batch in batches]
    whole, calls = [], []
    for batch, count in zip(batches, rounds, strict=True):
        times = medians({"whole": functools.partial(run_once, built, batch, drawn), **alone}, repeats=repeats)
        whole.append(times["whole"])
        calls.append(sum(times[call] for call in calls_of(setting, count, first, later)))
    return {
        "method": setting.method,
        "mode": search.mode,
        "score_norm": search.score_norm,
        "K": search.beams,
        "widths": list(search.widths),
        "users": len(batches),
        "rounds": float(np.mean(rounds)),
        "ms": 1e3 * float(np.mean(whole)),
        "calls_ms": 1e3 * float(np.mean(calls)),
        "overhead": float(np.sum(whole) / np.sum(calls)),
    }
