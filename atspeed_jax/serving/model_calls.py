"""The model calls of a decoder: their shapes, and the time of each alone."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from atspeed_jax.decoding.base import Prompt, StepModel
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.serving.decode_users import Keys, prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.timing import compile_together, medians, run_once
from atspeed_jax.shapes import SlotMask, StepInput


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
      contiguous: whether the tokens are kept in a range of slots.
      first_token: token of the first logit.
    """

    config: LlamaConfig
    batch: int
    tokens: int
    prompt: int
    path: int
    slots: int
    n_out: int
    unrolled: bool
    contiguous: bool
    first_token: int = 0


class TimedList(NamedTuple):
    """The time of a decode, and of its model calls.

    Attributes:
      rounds: of the decode.
      seconds: from tokens to lists on the host.
      calls: those that the decode makes, each with its seconds alone.
    """

    rounds: int
    seconds: float
    calls: list[tuple[ModelCall, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingStep:
    """A Llama that notes the shapes of its calls while they are traced.

    It equals only itself, so it is always traced anew.
    """

    model: LlamaStep
    calls: list[ModelCall]

    @property
    def first_token(self) -> int:
        return self.model.first_token

    def init_cache(self, batch: int, slots: int):
        return self.model.init_cache(batch, slots)

    def __call__(self, params, inputs: StepInput, cache, *, n_out: int):
        self.calls.append(
            ModelCall(
                config=self.model.config,
                batch=inputs.tokens.shape[0],
                tokens=inputs.tokens.shape[1],
                prompt=inputs.mask.width,
                path=inputs.mask.path.shape[-1],
                slots=jax.tree.leaves(cache)[0].shape[-2],
                n_out=n_out,
                unrolled=self.model.unrolled,
                contiguous=inputs.first_slot is not None,
                first_token=self.first_token,
            )
        )
        return self.model(params, inputs, cache, n_out=n_out)


def traced_calls(decoders: Decoders, setting: Setting, prompt: Prompt) -> tuple[list[ModelCall], list[ModelCall]]:
    """Returns the different model calls of round 1, and those of a later round.

    Plain beam search makes another call in every round; all of them count as of round
    1.
    """
    calls: list[ModelCall] = []

    def step(config: LlamaConfig, **fields: Any) -> StepModel:
        return RecordingStep(cast(LlamaStep, decoders.step(config, **fields)), calls)

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


def timed_lists(
    decoders: Decoders, setting: Setting, batches: Sequence[dict], keys: Keys | None = None, *, repeats: int
) -> Iterator[TimedList]:
    """Times whole decodes, and the model calls of each alone, interleaved.

    Args:
      decoders: of the setting.
      setting: how to decode.
      batches: prompts of one shape (`data.batches.prompt_batches`).
      keys: random keys of the users, for modes that draw.
      repeats: timings of each batch; their median counts.

    Yields:
      The times of each batch.
    """
    built = decoders.build(setting)
    first, later = traced_calls(decoders, setting, prompt_of(batches[0], keys))
    params = {decoders.draft: decoders.draft_params, decoders.target: decoders.target_params}
    alone = {call: timed_call(call, params[call.config]) for call in (*first, *later)}
    compile_together(alone.values())
    rounds = [int(built(prompt_of(batch, keys)).rounds) for batch in batches]
    for batch, count in zip(batches, rounds, strict=True):
        times = medians({"whole": functools.partial(run_once, built, batch, keys), **alone}, repeats=repeats)
        calls = [(call, times[call]) for call in calls_of(setting, count, first, later)]
        yield TimedList(count, times["whole"], calls)


def timed_call(call: ModelCall, params: Any) -> Callable[[], float]:
    """Returns a function that makes such a call alone and returns its seconds.

    The cache is written in place, as in a decoder.
    """
    model, step, inputs = call_alone(call)
    caches = [model.init_cache(call.batch, call.slots)]

    def run() -> float:
        start = time.perf_counter()
        logits, cache = step(params, inputs, caches.pop())
        jax.block_until_ready(logits)
        seconds = time.perf_counter() - start
        caches.append(cache)
        return seconds

    return run


def call_alone(call: ModelCall) -> tuple[LlamaStep, Callable, StepInput]:
    """Makes (the model, its jitted step, inputs) of a call that is made alone.

    The step takes (parameters, inputs, cache) and writes the cache in place.
    """
    model = LlamaStep(call.config, call.unrolled, call.first_token)
    step = jax.jit(functools.partial(model, n_out=call.n_out), donate_argnums=2)
    tokens = jnp.zeros((call.batch, call.tokens), jnp.int32)
    slots = jnp.broadcast_to(jnp.arange(call.tokens, dtype=jnp.int32) % call.slots, tokens.shape)
    path = jnp.full((*tokens.shape, call.path), call.prompt, jnp.int32)
    mask = SlotMask(tokens, jnp.full_like(tokens, call.prompt), path, call.prompt)
    inputs = StepInput(tokens, tokens, slots, mask, first_slot=0 if call.contiguous else None)
    return model, step, inputs
