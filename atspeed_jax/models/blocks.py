"""Parts of a Llama that do not depend on its config: norm, product, dropout."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

PRECISIONS = {name: jax.lax.Precision[name.upper()] for name in ("highest", "high", "default")}


class RMSNorm(nn.Module):
    """Divides by the root mean square and scales (Zhang and Sennrich 2019).

    Attributes:
      eps: added to the mean square.
    """

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # moments in bfloat16 lose too much
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.eps)
        return (normed * scale).astype(x.dtype)


def _project(x: Array, kernel: Array, precision: jax.lax.Precision | None, dtype: DTypeLike) -> Array:
    """Computes x @ kernel, with the kernel's gradient written as x^T g.

    JAX's rule writes g^T x. XLA on CPU then recomputes g with strides inside the
    transpose, which is slow.

    Args:
      x: [..., D].
      kernel: [D, F].
      precision: of this product and of the products of both gradients
        (`LlamaConfig.products`).
      dtype: of the result. A dtype wider than that of x keeps the sums as the product
        accumulated them.

    Returns:
      [..., F] in `dtype`. Gradients have the dtypes of x and kernel.
    """
    return jnp.matmul(x, kernel, precision=precision, preferred_element_type=dtype)


project = jax.custom_vjp(_project, nondiff_argnums=(2, 3))


def _forward(x, kernel, precision, dtype):
    return project(x, kernel, precision, dtype), (x, kernel)


def _backward(precision, dtype, saved, g):  # noqa: ARG001 (what a backward pass is called with)
    x, kernel = saved
    # As narrow as the model computes, so that the two products below are as fast as the
    # others.
    g = g.astype(x.dtype)
    leading = tuple(range(x.ndim - 1))
    to_kernel = jax.lax.dot_general(x, g, ((leading, leading), ((), ())), precision)
    return jnp.matmul(g, kernel.T, precision=precision), to_kernel


project.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """Zeroes a share of the entries and scales the others up.

    An entry takes 8 random bits, where nn.Dropout draws 32.

    Attributes:
      rate: the share, rounded to a multiple of 1/256.
      deterministic: turns dropout off.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dropped = round(256 * self.rate)
        if self.deterministic or not dropped:
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape, jnp.uint8)
        return jnp.where(bits >= dropped, x * (256 / (256 - dropped)), 0).astype(x.dtype)
