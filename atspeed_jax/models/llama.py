"""A Llama decoder in Flax Linen, pure: parameters and cache are arguments.

Draft and target are two configs of it. Architecture: RMSNorm, rotary positions (half-split layout, as Hugging Face
stores weights), grouped-query attention, SwiGLU (Touvron et al. 2023, sections 2.2; Ainslie et al. 2023 for GQA).
Layers are stacked and scanned, so compile time does not grow with depth; to decode they may lie side by side
(models/unroll.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from atspeed_jax.models.attention import attend
from atspeed_jax.models.blocks import PRECISIONS, Dropout, RMSNorm, project
from atspeed_jax.models.cache import Cache, Caches, init_cache, write
from atspeed_jax.models.rotary import rotary_angles, rotary_rows, rotate
from atspeed_jax.models.sizes import LlamaSizes, VocabularySize
from atspeed_jax.models.unroll import PREFIX
from atspeed_jax.shapes import SlotMask, Tokens
from atspeed_jax.utils import ranges as R

# Logical axes of the residual stream [B, T, D]: without them a partitioner may gather rows in the place of weights.
RESIDUAL = ("batch", None, None)
KEPT = {"nothing": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
LOOKED_UP = ("vocab", None)  # of the table when rows are taken from it: whole rows, like those of the batch they become


@dataclasses.dataclass(frozen=True)
class LlamaConfig(LlamaSizes, VocabularySize):
    """Sizes of one model: those of `LlamaSizes`, and its vocabulary.

    Attributes:
      adapter_dropout: dropout on what an adapter's low-rank branches read.

    Raises RangeError on a number outside its range, ValueError if heads do not divide.
    """

    adapter_dropout: R.PartialShare = 0.0

    def __post_init__(self):
        R.check_ranges(self)
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs, use an even head_dim")
        if self.remat_policy not in KEPT:
            raise ValueError(f"remat_policy={self.remat_policy!r}: expected one of {', '.join(KEPT)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: expected one of {', '.join(PRECISIONS)}")

    @property
    def products(self) -> jax.lax.Precision | None:
        """The precision of every matrix product; None where operands are narrower than float32."""
        return PRECISIONS[self.precision] if self.wide == self.dtype else None

    @property
    def wide(self) -> jnp.dtype:
        """The dtype of logits and of rotary angles: float32, or that of the model if it is wider."""
        return jnp.promote_types(self.dtype, jnp.float32)

    @property
    def arithmetic(self) -> str:
        """The dtype and the precision of the products, in words for reports."""
        if self.wide != self.dtype:
            return f"{self.dtype}, logits in {self.wide}"
        return self.dtype + ("" if self.precision == "highest" else f", products in {self.precision} precision")


class Attention(nn.Module):
    config: LlamaConfig
    n_out: int | None = None

    @nn.compact
    def __call__(self, x, rotary, mask, slots, cache):
        c = self.config
        own, turn, mask = _last((x, rotary, mask), self.n_out)

        def heads_of(name, x, heads):
            return Dense(c, heads * c.head_dim, name=name)(x).reshape(*x.shape[:2], heads, c.head_dim)

        query, key = rotate(heads_of("query", own, c.heads), *turn), rotate(heads_of("key", x, c.kv_heads), *rotary)
        value = heads_of("value", x, c.kv_heads)
        if cache is not None:
            cache = Cache(write(cache.keys, slots, key), write(cache.values, slots, value))
            key, value = cache.keys, cache.values
        return Dense(c, c.hidden_size, name="output")(attend(query, key, value, mask, c.products)), cache


class MLP(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        gate, up = Dense(c, c.intermediate_size, name="gate")(x), Dense(c, c.intermediate_size, name="up")(x)
        return Dense(c, c.hidden_size, name="down")(jax.nn.silu(gate) * up)


class Layer(nn.Module):
    """n_out: the last tokens that go on, when the others serve as keys and values alone; None for all."""

    config: LlamaConfig
    deterministic: bool
    n_out: int | None = None

    @nn.compact
    def __call__(self, x, cache, rotary, mask, slots):
        c = self.config
        drop = Dropout(c.dropout, self.deterministic)
        attended, cache = Attention(c, self.n_out, name="attention")(
            RMSNorm(c.norm_eps, name="attention_norm")(x), rotary, mask, slots, cache
        )
        x = _last(x, self.n_out) + drop(attended)
        x = x + drop(MLP(c, name="mlp")(RMSNorm(c.norm_eps, name="mlp_norm")(x)))
        return nn.with_logical_constraint(x, RESIDUAL), cache


class Llama(nn.Module):
    """tokens, positions [B, T] -> logits [B, n_out, V] of the last n_out tokens, in float32 or wider.

    With a cache, keys and values of the T tokens are written at slots [B, T] first; without one, slot t is token t.
    A token that sees nothing is padding, whatever token it is.
    unrolled: layers have parameters and caches of their own (models/unroll.py), and the last of them computes the
    n_out tokens alone; positions must then lie below the cache's slots.
    """

    config: LlamaConfig
    deterministic: bool = True
    unrolled: bool = False

    @nn.compact
    def __call__(
        self, tokens: Tokens, positions: Tokens, mask: SlotMask, slots: Tokens | None, cache: Caches, n_out: int
    ):
        c = self.config
        dtype = jnp.dtype(c.dtype)
        table = self.param("embedding", nn.initializers.normal(0.02), (c.vocab_size, c.hidden_size))
        # Masked keys and values are multiplied by 0, which is NaN if padding's own row of the table is not finite.
        known = jnp.where(mask.sees_something()[..., None], self._embed(table, tokens), 0)
        x = Dropout(c.dropout, self.deterministic)(known.astype(dtype))
        x = nn.with_logical_constraint(x, RESIDUAL)
        turning = c.head_dim, c.rope_theta, c.rope_scaling, c.wide
        if self.unrolled:
            rotary = rotary_rows(cache[0].keys.shape[1], positions, *turning)
            x, cache = self._side_by_side(x, cache, rotary, mask, slots, n_out)
        else:
            x, cache = self._scanned(x, cache, rotary_angles(positions, *turning), mask, slots)
        x = RMSNorm(c.norm_eps, name="norm")(x[:, x.shape[1] - n_out :])
        if c.tied_embeddings:
            logits = project(x, table.T.astype(dtype), c.products, c.wide)
        else:
            logits = Dense(c, c.vocab_size, c.wide, name="head")(x)
        if self.has_variable("adapter", "item_head"):
            own = project(x, self.get_variable("adapter", "item_head").astype(dtype), c.products, c.wide)
            logits = jnp.concatenate([logits, own], -1)
        return logits, cache

    def _scanned(self, x: Array, cache, rotary, mask: SlotMask, slots):
        c = self.config
        body = nn.remat(Layer, prevent_cse=False, policy=KEPT[c.remat_policy]) if c.remat else Layer
        layers = nn.scan(
            body,
            variable_axes={"params": 0, "adapter": 0},
            split_rngs={"params": True, "dropout": True},
            length=c.layers,
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
        )
        return layers(c, self.deterministic, name="layers")(x, cache, rotary, mask, slots)

    def _side_by_side(self, x: Array, caches, rotary, mask: SlotMask, slots, n_out: int):
        c, written = self.config, []
        for number, cache in enumerate(caches):
            kept = n_out if number + 1 == c.layers else None
            x, cache = Layer(c, self.deterministic, kept, name=f"{PREFIX}{number}")(x, cache, rotary, mask, slots)
            written.append(cache)
        return x, tuple(written)

    def _embed(self, table: Array, tokens: Tokens) -> Array:
        """Rows of the table; tokens beyond it are rows of an adapter (models/lora.py)."""
        table = nn.with_logical_constraint(table, LOOKED_UP)
        if not self.has_variable("adapter", "item_embedding"):
            return table[tokens]
        items, own = self.get_variable("adapter", "item_embedding"), tokens >= len(table)
        known = table[jnp.where(own, 0, tokens)]
        return jnp.where(own[..., None], items[jnp.where(own, tokens - len(table), 0)], known)


def _last(tree, count: int | None):
    """The last `count` tokens of arrays [B, T, ...]; None: all."""
    return tree if count is None else jax.tree.map(lambda x: x[:, x.shape[1] - count :], tree)


class Dense(nn.Module):
    """x @ kernel, and beside it the low-rank branch of an adapter where the collection "adapter" has one
    (models/lora.py). out: the result's dtype; None for that of the model."""

    config: LlamaConfig
    features: int
    out: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        out = dtype if self.out is None else self.out
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        y = project(x, kernel.astype(dtype), c.products, out)
        if self.has_variable("adapter", "a"):
            down, up = (self.get_variable("adapter", name).astype(dtype) for name in ("a", "b"))
            dropped = Dropout(c.adapter_dropout, not self.has_rng("dropout"))(x)
            y += project(project(dropped, down, c.products, dtype), up, c.products, out)
        return y


def init_params(config: LlamaConfig, key: Array) -> dict[str, Any]:
    """Random float32 parameters, a plain nested dict; layer parameters carry a leading axis [layers]."""
    token = jnp.zeros((1, 1), jnp.int32)
    return Llama(config).init(key, token, token, SlotMask.causal(jnp.ones((1, 1), bool)), None, None, 1)["params"]


def apply_masked(
    config: LlamaConfig,
    params,
    tokens: Tokens,
    positions: Tokens,
    mask: SlotMask,
    *,
    n_out: int,
    dropout_key: Array | None,
    adapter=None,
) -> Array:
    """Logits [B, n_out, V] of the last n_out tokens under an explicit mask, without a cache (slot t is token t): the
    training pass.

    dropout_key=None turns dropout off. adapter: what is trained in the place of params (`lora.scaled`); V then counts
    its item tokens too.
    """
    model = Llama(config, deterministic=dropout_key is None)
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    variables = {"params": params} if adapter is None else {"params": params, "adapter": adapter}
    return model.apply(variables, tokens, positions, mask, None, None, n_out, rngs=rngs)[0]


def forward(
    config: LlamaConfig, params, tokens: Tokens, valid: Array, *, dropout_key: Array | None = None, adapter=None
) -> Array:
    """Logits [B, T, V] of whole left-padded sequences under the causal mask; valid [B, T] marks real tokens."""
    positions, mask = jnp.maximum(jnp.cumsum(valid, 1) - 1, 0), SlotMask.causal(valid)
    how = {"n_out": tokens.shape[1], "dropout_key": dropout_key, "adapter": adapter}
    return apply_masked(config, params, tokens, positions, mask, **how)


@dataclasses.dataclass(frozen=True)
class LlamaStep:
    """The `step` contract of decoding for a Llama: hashable by its config, so it can be a static jit argument.

    unrolled: parameters are those of `unroll`, and the cache is one per layer; faster where calls are short.
    """

    config: LlamaConfig
    unrolled: bool = False

    def init_cache(self, batch: int, slots: int) -> Caches:
        c = self.config
        sizes = batch, slots, c.kv_heads, c.head_dim, jnp.dtype(c.dtype)
        if self.unrolled:
            return tuple(init_cache(None, *sizes) for _ in range(c.layers))
        return init_cache(c.layers, *sizes)

    def __call__(
        self, params, tokens: Tokens, positions: Tokens, slots: Tokens, mask: SlotMask, cache: Caches, *, n_out: int
    ):
        """-> (logits [B, n_out, V] of the last n_out tokens, cache). Slot S writes nowhere."""
        model = Llama(self.config, unrolled=self.unrolled)
        return model.apply({"params": params}, tokens, positions, mask, slots, cache, n_out)
