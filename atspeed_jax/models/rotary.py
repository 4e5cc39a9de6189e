"""Rotary positions (Su et al. 2021).

Pairs of a head's dimensions are rotated by an angle that grows with the position.
"""

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
    """Slower rotations, for prompts longer than a model was first trained on.

    Attributes:
      kind: "linear" divides every frequency by factor (Chen et al. 2023). "llama3"
        divides the low frequencies only (Llama 3.1, as in Hugging Face).
      factor: what a frequency is divided by.
      low_freq_factor: "llama3" divides a frequency that makes fewer rotations than this
        over original_positions.
      high_freq_factor: "llama3" keeps a frequency that makes more rotations than this
        over original_positions. Between the two factors the change is gradual.
      original_positions: length of the prompts of the first training.

    Raises:
      ValueError: a number is outside its range, or low_freq_factor is not below
        high_freq_factor.
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
        """Scales frequencies, in radians per position."""
        if self.kind == "linear":
            return frequency / self.factor
        turns = self.original_positions * frequency / (2 * jnp.pi)
        kept = jnp.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        return frequency * (kept + (1 - kept) / self.factor)


def rotary_angles(
    positions: Tokens, head_dim: int, theta: float, scaling: RopeScalingConfig | None, dtype
) -> tuple[Array, Array]:
    """Computes cosine and sine of the angles, position / theta^(2i / head_dim).

    Args:
      positions: [B, T].
      head_dim: width of one head.
      theta: base of the frequencies.
      scaling: slows the rotations; None leaves them as they are.
      dtype: of the angles.

    Returns:
      cos and sin, each [B, T, head_dim / 2].
    """
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=dtype) / head_dim)
    if scaling is not None:
        frequency = scaling.scale(frequency)
    angle = positions[..., None].astype(dtype) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotary_rows(
    length: int, positions: Tokens, head_dim: int, theta: float, scaling: RopeScalingConfig | None, dtype
) -> tuple[Array, Array]:
    """Reads `rotary_angles` from a constant table of `length` positions.

    XLA on CPU would compute the cosines again wherever they are read, once per head. A
    table is only read.

    Args:
      length: rows of the table; a position beyond the table gives NaN.
      positions: [B, T].
      head_dim: width of one head.
      theta: base of the frequencies.
      scaling: slows the rotations; None leaves them as they are.
      dtype: of the angles.

    Returns:
      cos and sin, each [B, T, head_dim / 2].
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
