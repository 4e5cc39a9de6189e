"""The floor of a decode's time: what its target calls must move and multiply.

Two ceilings are measured in the run itself: the rate of a large matrix product, and the
bandwidth of a copy. A call can be no faster than its operations at the one and its
bytes at the other.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.timing import fastest

# Bytes of the copied array, and side of the multiplied matrices: far above caches.
_COPIED = {"cpu": 256 << 20, "gpu": 2 << 30, "tpu": 1 << 30}
_SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What a device reached.

    Attributes:
      flops: operations per second of a square matrix product in the model's dtype.
      bandwidth: bytes per second of a copy, reads and writes counted.
    """

    flops: float
    bandwidth: float

    def seconds(self, flops: float, moved: float) -> float:
        """The least time of so many operations and bytes."""
        return max(flops / self.flops, moved / self.bandwidth)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one target call does.

    Attributes:
      flops: floating-point operations.
      moved: bytes: all weights once, the cache that is read and the cache that is
        written. Activations are taken to stay on the chip.
    """

    flops: float
    moved: float


def measure_ceilings(config: LlamaConfig, *, repeats: int = 3) -> Ceilings:
    """Measures both ceilings on the first device.

    Args:
      config: whose dtype and precision the product has.
      repeats: the best of so many counts.
    """
    platform = jax.default_backend()
    side, size = _SIDE.get(platform, 4096), _COPIED.get(platform, 1 << 30)
    dtype = jnp.dtype(config.dtype)
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=config.products))
    # In turns between two arrays that exist: a new one would be timed with its pages.
    words = [jnp.ones((size // 4,), jnp.float32), jnp.zeros((size // 4,), jnp.float32)]
    copy = jax.jit(lambda old, into: into.at[:].set(old + 1), donate_argnums=1)

    def copied():
        words.reverse()
        words[1] = copy(words[0], words[1])
        return words[1]

    return Ceilings(
        flops=2 * side**3 / fastest(lambda: product(matrix, matrix), repeats=repeats),
        bandwidth=2 * size / fastest(copied, repeats=repeats),
    )


def work_of_call(config: LlamaConfig, batch: int, prompt: int, read: int, tokens: int, n_out: int) -> Work:
    """Counts what one call of the target does, with layers side by side.

    Args:
      config: of the target.
      batch: users B.
      prompt: slots of the prompt.
      read: slots behind the prompt that a token attends to.
      tokens: tokens of the call, per user.
      n_out: tokens with logits; the last layer multiplies these alone, but for their
        keys and values.
    """
    c, size = config, jnp.dtype(config.dtype).itemsize
    key_value = 2 * c.hidden_size * c.head_dim * c.kv_heads
    others = 2 * c.hidden_size * c.head_dim * c.heads + 3 * c.hidden_size * c.intermediate_size
    head = c.vocab_size * c.hidden_size
    attended = 2 * c.heads * c.head_dim * (prompt + read)
    per_layer = c.layers * tokens * key_value + ((c.layers - 1) * tokens + n_out) * (others + attended)
    weights = c.layers * (key_value + others) + head
    cache = 2 * c.layers * batch * c.kv_heads * c.head_dim * (prompt + read + tokens)
    return Work(flops=2.0 * batch * (per_layer + n_out * head), moved=float(size * (weights + cache)))


def floor_seconds(
    config: LlamaConfig, setting: Setting, widths: tuple[int, ...], batch: int, prompt: int, ceilings: Ceilings
) -> tuple[float, Work]:
    """Computes the floor of a whole decode.

    Plain beam search makes a call per level, so its floor is the sum over its calls.
    The floor of speculation is ONE call over prompt and tree: the draft, and any call
    after the first, count as time above it.

    Args:
      config: of the target.
      setting: how lists are decoded.
      widths: resolved widths of the tree; for plain beam search as many as a tree has
        levels, of whatever width.
      batch, prompt: users, and slots of the prompt.
      ceilings: of the device.

    Returns:
      Seconds, and the work of those calls together.
    """
    beams, levels = setting.search.beams, len(widths)
    if setting.method == "beam_search":
        calls = [work_of_call(config, batch, prompt, 0, prompt, 1)]
        calls += [work_of_call(config, batch, prompt, level, beams, beams) for level in range(1, levels + 1)]
    else:
        nodes = min(sum(widths), setting.search.budget or sum(widths))
        calls = [work_of_call(config, batch, prompt, levels, prompt + nodes, nodes + 1)]
    seconds = sum(ceilings.seconds(call.flops, call.moved) for call in calls)
    return seconds, Work(sum(call.flops for call in calls), sum(call.moved for call in calls))
