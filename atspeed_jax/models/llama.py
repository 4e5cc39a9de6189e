"""A Llama decoder in Flax Linen. It is pure: parameters and cache are arguments.

Draft and target are two configs of it. The architecture is RMSNorm, rotary positions
(half-split layout, as Hugging Face stores weights), grouped-query attention and SwiGLU
(Touvron et al. 2023, section 2.2; Ainslie et al. 2023). `LlamaConfig.model_type` adds
what Qwen2 (biases) and Qwen3 (normed queries and keys) have beside it. Layers are stacked and scanned,
so compile time does not grow with depth. To decode they may be unrolled
(models/unroll.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from atspeed_jax.models.blocks import Dropout, RMSNorm, project
from atspeed_jax.models.cache import Caches, init_cache
from atspeed_jax.models.layers import RESIDUAL, Dense, Layer
from atspeed_jax.models.llama_config import REMAT_POLICIES, LlamaConfig
from atspeed_jax.models.rotary import rotary_angles, rotary_rows
from atspeed_jax.models.unroll import PREFIX
from atspeed_jax.shapes import SlotMask, StepInput, Tokens

# Logical axes of the embedding when rows are taken from it: whole rows, split like the
# batch that they become.
LOOKED_UP = ("vocab", None)


class Llama(nn.Module):
    """The whole model.

    See `LlamaStep` for a call with a cache and `forward` for one without.

    Attributes:
      config: of the model.
      deterministic: turns dropout off.
      unrolled: each layer has separate parameters and a separate cache
        (models/unroll.py), and the last layer computes the n_out tokens only.
      first_token: token of the first logit. The logits of the tokens before it are not
        computed.
    """

    config: LlamaConfig
    deterministic: bool = True
    unrolled: bool = False
    first_token: int = 0

    @nn.compact
    def __call__(self, inputs: StepInput, cache: Caches, n_out: int):
        """Reads T tokens.

        Args:
          inputs: T tokens; with unrolled layers, positions below the number of slots. A
            token that attends to nothing is padding, whatever token it is.
          cache: keys and values of earlier calls; None makes slot t token t.
          n_out: number of last tokens whose logits are returned.

        Returns:
          Logits [B, n_out, V - first_token] in float32 or wider, and the new cache.
        """
        c, mask = self.config, inputs.mask
        slots, first = (None, None) if cache is None else (inputs.slots, inputs.first_slot)
        dtype = jnp.dtype(c.dtype)
        table = self.param("embedding", nn.initializers.normal(0.02), (c.vocab_size, c.hidden_size))
        # Masked keys and values are multiplied by 0. That is NaN if the embedding of
        # padding is not finite, so padding gets zeros.
        embedded = jnp.where(mask.sees_something()[..., None], self._embed(table, inputs.tokens), 0)
        x = Dropout(c.dropout, self.deterministic)(embedded.astype(dtype))
        x = nn.with_logical_constraint(x, RESIDUAL)
        if cache is None:  # training keeps the logits of all pairs anyway, and a scan would make the mask per layer
            mask = mask.make()
        rope = c.head_dim, c.rope_theta, c.rope_scaling, c.wide
        if self.unrolled:
            assert isinstance(cache, tuple), "an unrolled model has a cache per layer"
            rotary = rotary_rows(cache[0].keys.shape[2], inputs.positions, *rope)
            x, cache = self._unrolled(x, cache, rotary, mask, slots, first, n_out)
        else:
            x, cache = self._scanned(x, cache, rotary_angles(inputs.positions, *rope), mask, slots, first)
        x = RMSNorm(c.norm_eps, name="norm")(x[:, x.shape[1] - n_out :])
        if c.tied_embeddings:
            logits = project(x, table[self.first_token :].T.astype(dtype), c.products, c.wide)
        else:
            logits = Dense(c, c.vocab_size, c.wide, self.first_token, name="head")(x)
        if self.has_variable("adapter", "item_head"):
            item_logits = project(x, self.get_variable("adapter", "item_head").astype(dtype), c.products, c.wide)
            logits = jnp.concatenate([logits, item_logits], -1)
        return logits, cache

    def _scanned(self, x: Array, cache, rotary, mask: SlotMask, slots, first: int | None):
        c = self.config
        body = nn.remat(Layer, prevent_cse=False, policy=REMAT_POLICIES[c.remat_policy]) if c.remat else Layer
        layers = nn.scan(
            body,
            variable_axes={"params": 0, "adapter": 0},
            split_rngs={"params": True, "dropout": True},
            length=c.layers,
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        )
        return layers(c, self.deterministic, first_slot=first, name="layers")(x, cache, rotary, mask, slots)

    def _unrolled(self, x: Array, caches, rotary, mask: SlotMask, slots, first: int | None, n_out: int):
        c, written = self.config, []
        for number, cache in enumerate(caches):
            kept = n_out if number + 1 == c.layers else None
            layer = Layer(c, self.deterministic, kept, first, name=f"{PREFIX}{number}")
            x, cache = layer(x, cache, rotary, mask, slots)
            written.append(cache)
        return x, tuple(written)

    def _embed(self, table: Array, tokens: Tokens) -> Array:
        """Looks up embeddings [B, T, D].

        Tokens beyond the table are item tokens of an adapter (models/lora.py).
        """
        table = nn.with_logical_constraint(table, LOOKED_UP)
        if not self.has_variable("adapter", "item_embedding"):
            return table[tokens]
        items, is_item = self.get_variable("adapter", "item_embedding"), tokens >= len(table)
        words = table[jnp.where(is_item, 0, tokens)]
        return jnp.where(is_item[..., None], items[jnp.where(is_item, tokens - len(table), 0)], words)


def init_params(config: LlamaConfig, key: Array) -> dict[str, Any]:
    """Draws random float32 parameters.

    Returns:
      A nested dict; parameters of layers have a leading axis [layers].
    """
    token = jnp.zeros((1, 1), jnp.int32)
    variables = Llama(config).init(key, StepInput.causal(token, jnp.ones((1, 1), bool)), None, 1)
    return cast(dict, variables)["params"]


def apply_masked(
    config: LlamaConfig,
    params,
    inputs: StepInput,
    *,
    n_out: int,
    dropout_key: Array | None,
    adapter=None,
) -> Array:
    """Reads T tokens under an explicit mask without a cache, as training does.

    Args:
      config: of the model.
      params: its parameters.
      inputs: T tokens; slot t of the mask is token t.
      n_out: number of last tokens whose logits are returned.
      dropout_key: key of dropout; None turns dropout off.
      adapter: an adapter as `lora.scale_adapter` returns it; None for the plain model.

    Returns:
      Logits [B, n_out, V]; V counts the item tokens of an adapter too.
    """
    model = Llama(config, deterministic=dropout_key is None)
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    variables = {"params": params} if adapter is None else {"params": params, "adapter": adapter}
    return model.apply(variables, inputs, None, n_out, rngs=rngs)[0]


def forward(
    config: LlamaConfig, params, tokens: Tokens, valid: Array, *, dropout_key: Array | None = None, adapter=None
) -> Array:
    """Reads whole left-padded sequences under the causal mask.

    Args:
      config: of the model.
      params: its parameters.
      tokens: [B, T].
      valid: [B, T], False for padding.
      dropout_key: key of dropout; None turns dropout off.
      adapter: see `apply_masked`.

    Returns:
      Logits [B, T, V].
    """
    how = {"n_out": tokens.shape[1], "dropout_key": dropout_key, "adapter": adapter}
    return apply_masked(config, params, StepInput.causal(tokens, valid), **how)


@dataclasses.dataclass(frozen=True)
class LlamaStep:
    """A Llama as the decoder calls it (`decoding.base.StepModel`).

    It is hashable by its config, so it can be a static jit argument.

    Attributes:
      config: of the model.
      unrolled: parameters are those of `unroll`, and every layer has a cache; faster
        where calls read few tokens.
      first_token: token of the first logit. The item codes stand behind all other
        tokens, and under trie norm a decoder reads the logits of codes alone.
    """

    config: LlamaConfig
    unrolled: bool = False
    first_token: int = 0

    def init_cache(self, batch: int, slots: int) -> Caches:
        """Makes an all-zero cache of `slots` slots for `batch` users."""
        c = self.config
        sizes = batch, slots, c.kv_heads, c.head_dim, jnp.dtype(c.dtype)
        if self.unrolled:
            return tuple(init_cache(None, *sizes) for _ in range(c.layers))
        return init_cache(c.layers, *sizes)

    def __call__(self, params, inputs: StepInput, cache: Caches, *, n_out: int):
        """Reads T tokens; a token with slot S is not written.

        Returns:
          Logits [B, n_out, V - first_token] of the last n_out tokens, and the new
          cache.
        """
        model = Llama(self.config, unrolled=self.unrolled, first_token=self.first_token)
        return model.apply({"params": params}, inputs, cache, n_out)
