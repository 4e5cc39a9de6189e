"""Temporary memory of a call that reads a long prompt, by the compiled program."""

import jax
import jax.numpy as jnp

from atspeed_jax.models import attention
from atspeed_jax.models.llama import LlamaConfig, LlamaStep, init_params
from atspeed_jax.models.unroll import unroll
from atspeed_jax.shapes import StepInput

CONFIG = LlamaConfig(19, 32, 64, 2, 4, 2, 8, 1e4, 1e-5, True, 0.0, "float32", False)


def temporaries(length):
    """Bytes of a call that reads a prompt of so many tokens, beside its arguments and results."""
    step = LlamaStep(CONFIG, unrolled=True)

    def call(params, tokens, valid, cache):
        return step(params, StepInput.causal(tokens, valid), cache, n_out=1)

    params = jax.eval_shape(lambda: unroll(init_params(CONFIG, jax.random.key(0))))
    prompt = [jax.ShapeDtypeStruct((1, length), dtype) for dtype in (jnp.int32, bool)]
    cache = jax.eval_shape(lambda: step.init_cache(1, length))
    compiled = jax.jit(call).lower(params, *prompt, cache).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_a_long_prompt_grows_with_its_length(monkeypatch):
    """With a byte per pair of tokens it would be 8 times the first at 4,000 tokens, 10 times with that of logits."""
    monkeypatch.setattr(attention, "MOST_BYTES", 1 << 20)
    first, second, last = (temporaries(length) for length in (1000, 2000, 4000))
    assert last - second < 2.5 * (second - first)
    assert last < 2 * first
