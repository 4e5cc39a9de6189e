"""The parts of a Llama that know nothing of its sizes: norm, product, dropout."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class RMSNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # moments in bfloat16 lose too much
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.eps)
        return (normed * scale).astype(x.dtype)


@jax.custom_vjp
def project(x: Array, kernel: Array) -> Array:
    """X [..., D] @ kernel [D, F], with the kernel's gradient written as x^T g.

    JAX's own rule writes g^T x, and XLA on CPU then recomputes g, strided, inside the transpose, which is slow.
    """
    return x @ kernel


def _forward(x, kernel):
    return x @ kernel, (x, kernel)


def _backward(saved, g):
    x, kernel = saved
    leading = tuple(range(x.ndim - 1))
    return g @ kernel.T, jax.lax.dot_general(x, g, ((leading, leading), ((), ())))


project.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """Zeroes a share `rate` of x and scales the rest up, from 8 random bits per entry, where nn.Dropout draws 32."""

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dropped = round(256 * self.rate)
        if self.deterministic or not dropped:
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape, jnp.uint8)
        return jnp.where(bits >= dropped, x * (256 / (256 - dropped)), 0).astype(x.dtype)
