"""The floor counts what XLA counts, and the ceilings are what a device did."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.benchmarks import decode_floor
from atspeed_jax.benchmarks.decode_floor import Ceilings, floor_seconds, measure_ceilings, work_of_call
from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.serving.model_calls import ModelCall, traced_calls
from atspeed_jax.serving.settings import Setting
from tiny_pair import tiny_pair

CONFIG = LlamaConfig(50, 64, 96, 3, 4, 2, 16, 1e4, 1e-6, False, 0.0, "float32", False)


def test_operations_are_those_that_xla_counts():
    """Of a call that reads a prompt alone; norms and softmax are in XLA's count only."""
    from atspeed_jax.models.llama import LlamaStep, init_params
    from atspeed_jax.models.unroll import unroll
    from atspeed_jax.shapes import SlotMask, StepInput

    def call(params, tokens):
        step = LlamaStep(CONFIG, unrolled=True)
        mask = SlotMask(jnp.zeros_like(tokens), jnp.full_like(tokens, 20), jnp.zeros((2, 20, 0), jnp.int32), 20)
        return step(params, StepInput(tokens, tokens, tokens, mask), step.init_cache(2, 20), n_out=4)[0]

    params = jax.eval_shape(lambda key: init_params(CONFIG, key), jax.random.key(0))
    params = jax.eval_shape(unroll, params)
    cost = jax.jit(call).lower(params, jax.ShapeDtypeStruct((2, 20), jnp.int32)).cost_analysis()
    ours = work_of_call(CONFIG, 2, 20, 0, 20, 4)
    assert ours.flops == pytest.approx(cost["flops"], rel=0.1)


def test_bytes_are_weights_once_and_the_cache():
    work = work_of_call(CONFIG, batch=2, prompt=7, read=3, tokens=5, n_out=5)
    weights = 3 * (2 * 64 * 16 * (4 + 2) + 3 * 64 * 96) + 50 * 64
    cache = 2 * 3 * 2 * 2 * 16 * (7 + 3 + 5)
    assert work.moved == 4 * (weights + cache)
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    assert work_of_call(half, batch=2, prompt=7, read=3, tokens=5, n_out=5).moved == work.moved / 2


def test_the_floor_is_of_the_calls_that_the_decoder_makes():
    pair = tiny_pair()
    decoders = pair.decoders(pair.target, unrolled=True)
    prompt = pair.batches(9, 1, 1)[0]
    ceilings = Ceilings(flops=1.0, bandwidth=1e30)

    def flops(call: ModelCall):
        return work_of_call(call.config, call.batch, call.prompt, call.path, call.tokens, call.n_out).flops

    from atspeed_jax.serving.decode_users import prompt_of

    plain = Setting.beam_search(2, "vocab")
    first, _ = traced_calls(decoders, plain, prompt_of(prompt))
    assert floor_seconds(pair.target, plain, (1, 1), 1, 10, ceilings)[0] == pytest.approx(
        sum(map(flops, first)), rel=0.02
    )
    tree = Setting.strict("draft", 2, pair.decode)
    first, _ = traced_calls(decoders, tree, prompt_of(prompt))
    assert floor_seconds(pair.target, tree, (3, 4), 1, 10, ceilings)[0] == pytest.approx(flops(first[-1]), rel=0.02)
    small = tree.searching(budget=2)
    seconds, work = floor_seconds(pair.target, small, (3, 4), 1, 10, Ceilings(1e30, 1.0))
    assert seconds == work.moved
    assert work == work_of_call(pair.target, 1, 10, 2, 12, 3)


def test_ceilings_are_measured(monkeypatch):
    monkeypatch.setattr(decode_floor, "_SIDE", {"cpu": 256})
    monkeypatch.setattr(decode_floor, "_COPIED", {"cpu": 1 << 20})
    found = measure_ceilings(CONFIG, repeats=2)
    assert 1e8 < found.flops < 1e14
    assert 1e8 < found.bandwidth < 1e14
