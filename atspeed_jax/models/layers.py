"""One layer of a Llama: attention, MLP and their matrices.

A matrix may have a bias, and the low-rank branch of an adapter.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from atspeed_jax.models.attention import attend
from atspeed_jax.models.blocks import Dropout, RMSNorm, project
from atspeed_jax.models.cache import Cache, write
from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.models.rotary import rotate
from atspeed_jax.models.unroll import GATE_UP, KEY_VALUE, QUERY_KEY_VALUE, joined_name

# Logical axes of the residual stream [B, T, D]. Without them a partitioner may gather
# rows instead of weights.
RESIDUAL = ("batch", None, None)


def _last(tree, count: int | None):
    """Takes the last `count` tokens of arrays [B, T, ...]; None takes all."""
    return tree if count is None else jax.tree.map(lambda x: x[:, x.shape[1] - count :], tree)


class Dense(nn.Module):
    """Multiplies by a matrix, adds its bias and the low-rank branch of an adapter.

    The branch is added if the collection "adapter" has one for this matrix
    (models/lora.py).

    Attributes:
      config: of the model.
      features: size of the last axis of the result.
      out: dtype of the result; None for that of the model.
      first: first column that is computed; the result has the columns from it on.
      bias: whether the matrix has a bias.
    """

    config: LlamaConfig
    features: int
    out: jnp.dtype | None = None
    first: int = 0
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        out = dtype if self.out is None else self.out
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        y = project(x, kernel[:, self.first :].astype(dtype), c.products, out)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))[self.first :]
            # Wide, so that the gradient of the bias, a sum over all tokens, is summed wide
            # by any compiler.
            y = (y.astype(c.wide) + bias.astype(c.wide)).astype(out)
        if self.has_variable("adapter", "a"):
            down, up = (self.get_variable("adapter", name).astype(dtype) for name in ("a", "b"))
            dropped = Dropout(c.adapter_dropout, not self.has_rng("dropout"))(x)
            y += project(project(dropped, down, c.products, dtype), up[:, self.first :], c.products, out)
        return y


def products(
    module: nn.Module, x: Array, parts: tuple[str, ...], sizes: tuple[int, ...], bias: bool = False
) -> list[Array]:
    """Multiplies by several matrices, in one product where parameters have them joined.

    Args:
      module: has the matrices (models/unroll.py) and a config.
      x: [B, T, D].
      parts: names of the matrices.
      sizes: columns of each.
      bias: whether the matrices have biases.

    Returns:
      [B, T, size] for each matrix.
    """
    c: LlamaConfig = module.config  # pyright: ignore[reportAttributeAccessIssue]
    if module.has_variable("params", joined_name(parts)):
        y = Dense(c, sum(sizes), bias=bias, name=joined_name(parts))(x)
        return jnp.split(y, np.cumsum(sizes)[:-1], -1)
    return [Dense(c, size, bias=bias, name=name)(x) for name, size in zip(parts, sizes, strict=True)]


class Attention(nn.Module):
    """Grouped-query attention with rotary positions.

    The config says whether matrices have biases, and whether queries and keys are normed
    per head (Henry et al. 2020) before they are rotated.

    Attributes:
      config: of the model.
      n_out: number of last tokens whose result is computed; None for all tokens.
      first_slot: see `StepInput.first_slot`.
    """

    config: LlamaConfig
    n_out: int | None = None
    first_slot: int | None = None

    @nn.compact
    def __call__(self, x, rotary, mask, slots, cache):
        c = self.config
        queried, angles, mask = _last((x, rotary, mask), self.n_out)

        wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim
        if self.has_variable("params", joined_name(QUERY_KEY_VALUE)):
            query, key, value = products(self, x, QUERY_KEY_VALUE, (wide, narrow, narrow), c.qkv_bias)
            query = _last(query, self.n_out)
        else:
            (query,) = products(self, queried, ("query",), (wide,), c.qkv_bias)
            key, value = products(self, x, KEY_VALUE, (narrow, narrow), c.qkv_bias)
        query, key, value = (one.reshape(*one.shape[:2], -1, c.head_dim) for one in (query, key, value))
        if c.qk_norm:
            query, key = RMSNorm(c.norm_eps, name="query_norm")(query), RMSNorm(c.norm_eps, name="key_norm")(key)
        query, key = rotate(query, *angles), rotate(key, *rotary)
        if cache is not None:
            keys, values = (
                write(store, slots, new, self.first_slot) for store, new in ((cache.keys, key), (cache.values, value))
            )
            cache = Cache(keys, values)
        else:
            keys, values = key.swapaxes(1, 2), value.swapaxes(1, 2)
        # Training has no cache. Its gradients keep the order of their sums.
        attended = attend(query, keys, values, mask, c.products, trains=cache is None)
        return Dense(c, c.hidden_size, bias=c.output_bias, name="output")(attended), cache


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020): silu(x gate) * (x up), then down.

    Attributes:
      config: of the model.
    """

    config: LlamaConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        gate, up = products(self, x, GATE_UP, (c.intermediate_size,) * 2)
        return Dense(c, c.hidden_size, name="down")(jax.nn.silu(gate) * up)


class Layer(nn.Module):
    """A layer: attention and MLP, each added to the residual stream.

    Both read a normed input.

    Attributes:
      config: of the model.
      deterministic: turns dropout off.
      n_out: number of last tokens that the layer returns, if the others are only read
        as keys and values; None for all tokens.
      first_slot: see `StepInput.first_slot`.
    """

    config: LlamaConfig
    deterministic: bool
    n_out: int | None = None
    first_slot: int | None = None

    @nn.compact
    def __call__(self, x, cache, rotary, mask, slots):
        c = self.config
        drop = Dropout(c.dropout, self.deterministic)
        attended, cache = Attention(c, self.n_out, self.first_slot, name="attention")(
            RMSNorm(c.norm_eps, name="attention_norm")(x), rotary, mask, slots, cache
        )
        x = _last(x, self.n_out) + drop(attended)
        x = x + drop(MLP(c, name="mlp")(RMSNorm(c.norm_eps, name="mlp_norm")(x)))
        return nn.with_logical_constraint(x, RESIDUAL), cache
