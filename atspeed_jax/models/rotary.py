"""Rotary positions: pairs of a head's dimensions turned by an angle that grows with the position (Su et al. 2021)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jax import Array

from atspeed_jax.shapes import Tokens
from atspeed_jax.utils.ranges import Range, check_ranges


@dataclasses.dataclass(frozen=True)
class RopeScalingConfig:
    """Slower turns, for prompts longer than a model was first trained on.

    "linear": every frequency divided by `factor` (Chen et al. 2023). "llama3": the slow ones alone, those that turn
    less than low_freq_factor times over original_positions; those that turn more than high_freq_factor times stay, and
    between the two the change is gradual (Llama 3.1, as in Hugging Face). Raises ValueError for impossible numbers.
    """

    kind: Literal["linear", "llama3"]
    factor: Annotated[float, Range(1, 1e6)]
    low_freq_factor: Annotated[float, Range(0, 1e6, "(]")] = 1.0
    high_freq_factor: Annotated[float, Range(0, 1e6, "(]")] = 4.0
    original_positions: Annotated[int, Range(1, 2**31 - 1)] = 8192

    def __post_init__(self):
        check_ranges(self)
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor}, high_freq_factor={self.high_freq_factor}: expected low < high"
            )

    def scale(self, frequency: Array) -> Array:
        """The scaled frequencies, radians per position."""
        if self.kind == "linear":
            return frequency / self.factor
        turns = self.original_positions * frequency / (2 * jnp.pi)
        kept = jnp.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        return frequency * (kept + (1 - kept) / self.factor)


def rotary_angles(
    positions: Tokens, head_dim: int, theta: float, scaling: RopeScalingConfig | None, dtype
) -> tuple[Array, Array]:
    """(cos, sin) [B, T, head_dim / 2] of the angle position / theta^(2i / head_dim), slowed by `scaling`."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=dtype) / head_dim)
    if scaling is not None:
        frequency = scaling.scale(frequency)
    angle = positions[..., None].astype(dtype) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotary_rows(
    length: int, positions: Tokens, head_dim: int, theta: float, scaling: RopeScalingConfig | None, dtype
) -> tuple[Array, Array]:
    """`rotary_angles` of positions below `length`, as rows of a constant table; NaN beyond it.

    XLA on CPU computes cosines anew in each place that reads them, once for every head; a table is only read.
    """
    with jax.ensure_compile_time_eval():
        table = rotary_angles(jnp.arange(length)[None], head_dim, theta, scaling, dtype)
    cos, sin = (rows[0].at[positions].get(mode="fill", fill_value=jnp.nan) for rows in table)
    return cos, sin


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates queries or keys by the angles of their positions.

    Dimension i of a head is paired with dimension i + head_dim / 2, the layout in which
    Hugging Face stores weights.

    Args:
      x: [B, T, H, head_dim].
      cos: [B, T, head_dim / 2] (`rotary_angles`).
      sin: the same shape as cos.

    Returns:
      [B, T, H, head_dim] in the dtype of x.
    """
    first, second = jnp.split(x, 2, -1)
    cos, sin = cos[:, :, None].astype(x.dtype), sin[:, :, None].astype(x.dtype)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
