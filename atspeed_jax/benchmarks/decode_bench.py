"""What the cells of suite `decode` share: a clock, models, and decoders that have run."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from atspeed_jax.benchmarks.decode_cells import DecodeSuite, Way
from atspeed_jax.benchmarks.decode_floor import Ceilings
from atspeed_jax.benchmarks.hugging_face import GenerateDecoder, HuggingFace
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.serving.decode_users import Decoded
from atspeed_jax.serving.decoders import Decoders


class OutOfTime(Exception):
    """The suite's budget of seconds is used up."""


@dataclasses.dataclass
class Clock:
    """The budget of a suite.

    Attributes:
      end: seconds of `time.perf_counter`; infinity for no limit.
      compile_s: what the last program took to compile.
    """

    end: float = float("inf")
    compile_s: float = 0.0

    @property
    def left(self) -> float:
        return self.end - time.perf_counter()

    def check(self, needed: float = 0.0) -> None:
        """Raises OutOfTime if fewer than `needed` seconds are left."""
        if self.left <= needed:
            raise OutOfTime


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """What the cells of one shape share.

    Attributes:
      pair, suite: what is measured.
      decoders: of the shape.
      trained: of the pair itself: the same lists at no cost, for a second look in
        float64.
      ceilings: of the device.
      clock: of the suite.
      say: called with a line.
    """

    pair: Pair
    suite: DecodeSuite
    decoders: Decoders
    trained: Decoders
    ceilings: Ceilings
    clock: Clock
    say: Callable[[str], None]

    @functools.cached_property
    def hugging_face(self) -> HuggingFace:
        """`generate` of the shape's target."""
        return HuggingFace.of(self.decoders, self.pair.id_tokens)

    def build(self, way: Way) -> Callable[[Prompt], Result]:
        """The decoder of a row."""
        if way.method != "hf":
            return self.decoders.build(way.setting)
        return GenerateDecoder(self.hugging_face, self.pair.id_tokens, way.setting.search.beams)


@dataclasses.dataclass(eq=False)
class Timed:
    """A method that has been compiled and run.

    Attributes:
      way: of the row.
      decode: the decoder.
      keys: of the users, in a mode that draws.
      decoded: all lists.
      compile_s: seconds of the first call beyond a later one.
      seconds: [repeats, batches].
    """

    way: Way
    decode: Callable
    keys: Any
    decoded: Decoded
    compile_s: float
    seconds: np.ndarray
