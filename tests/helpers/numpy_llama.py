"""A Llama in float64 NumPy, one sequence at a time, without padding, cache or batch: what the fast one must equal.

Heads are looped over, rotary positions are complex rotations, attention takes an explicit triangle. It reads the
parameter tree.
"""

from __future__ import annotations

import jax
import numpy as np

from atspeed_jax.models.llama import init_params


def numpy_llama(config, params):
    """-> logits(tokens): [T, V] float64 after each token of one sequence."""
    group = config.heads // config.kv_heads

    def leaf(*names, layer=None):
        value = params
        for name in names:
            value = value[name]
        value = np.asarray(value, np.float64)
        return value if layer is None else value[layer]

    def bias(name, switch, layer):
        return leaf("layers", "attention", name, "bias", layer=layer) if switch else 0.0

    def norm(x, scale):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * scale

    def turn(x):
        """x [T, head_dim]: entries i and i + head_dim / 2 are one complex number."""
        half = config.head_dim // 2
        speed = 1 / config.rope_theta ** (2 * np.arange(half) / config.head_dim)
        if config.rope_scaling is not None:
            speed = np.array([slowed(config.rope_scaling, one) for one in speed])
        turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * np.arange(len(x))[:, None] * speed)
        return np.concatenate([turned.real, turned.imag], 1)

    def head(projected, index):
        return projected[:, index * config.head_dim : (index + 1) * config.head_dim]

    def turned_head(projected, index, name, layer):
        part = head(projected, index)
        if config.qk_norm:
            part = norm(part, leaf("layers", "attention", f"{name}_norm", "scale", layer=layer))
        return turn(part)

    def attention(x, layer):
        q, k, v = (
            x @ leaf("layers", "attention", name, "kernel", layer=layer) + bias(name, config.qkv_bias, layer)
            for name in ("query", "key", "value")
        )
        hidden = np.triu(np.ones((len(x), len(x)), bool), 1)
        outputs = []
        for index in range(config.heads):
            keys = turned_head(k, index // group, "key", layer)
            scores = turned_head(q, index, "query", layer) @ keys.T / np.sqrt(config.head_dim)
            weights = np.exp(np.where(hidden, -np.inf, scores) - scores.max(1, keepdims=True))
            outputs.append(weights / weights.sum(1, keepdims=True) @ head(v, index // group))
        kernel = leaf("layers", "attention", "output", "kernel", layer=layer)
        return np.concatenate(outputs, 1) @ kernel + bias("output", config.output_bias, layer)

    def feed_forward(x, layer):
        gate, up, down = (leaf("layers", "mlp", name, "kernel", layer=layer) for name in ("gate", "up", "down"))
        gated = x @ gate
        return gated / (1 + np.exp(-gated)) * (x @ up) @ down

    def logits(tokens):
        x = leaf("embedding")[list(tokens)]
        for layer in range(config.layers):
            x = x + attention(norm(x, leaf("layers", "attention_norm", "scale", layer=layer)), layer)
            x = x + feed_forward(norm(x, leaf("layers", "mlp_norm", "scale", layer=layer)), layer)
        x = norm(x, leaf("norm", "scale"))
        return x @ (leaf("embedding").T if config.tied_embeddings else leaf("head", "kernel"))

    return logits


def slowed(scaling, speed):
    """One frequency under rope scaling, case by case as Hugging Face's documentation tells it."""
    if scaling.kind == "linear":
        return speed / scaling.factor
    wavelength, reach = 2 * np.pi / speed, scaling.original_positions
    if wavelength < reach / scaling.high_freq_factor:
        return speed
    if wavelength > reach / scaling.low_freq_factor:
        return speed / scaling.factor
    smooth = (reach / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return (1 - smooth) * speed / scaling.factor + smooth * speed


def wide_params(config, seed):
    """Random float32 parameters, large enough for every part to matter: matrices 12 times the usual, scales around 1.

    Made in NumPy from the shapes alone: compiling the initializer takes seconds.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape)
        return np.asarray(1 + 0.3 * values if path[-1].key == "scale" else 0.24 * values, np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)
