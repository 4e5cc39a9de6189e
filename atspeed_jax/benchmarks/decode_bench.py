"""What the cells of suite `decode` share: a clock, models, and decoders that have run."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from atspeed_jax.benchmarks.decode_cells import DecodeSuite, Way
from atspeed_jax.benchmarks.decode_floor import Ceilings
from atspeed_jax.benchmarks.hugging_face import GenerateDecoder, HuggingFace
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.serving.decode_users import Decoded, prompt_of
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
      ahead: decoders that `compile_ahead` compiled, and the seconds that each took.
    """

    pair: Pair
    suite: DecodeSuite
    decoders: Decoders
    trained: Decoders
    ceilings: Ceilings
    clock: Clock
    say: Callable[[str], None]
    ahead: dict[Any, tuple[Callable, float]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def hugging_face(self) -> HuggingFace:
        """`generate` of the shape's target."""
        return HuggingFace.of(self.decoders, self.pair.id_tokens)

    def build(self, way: Way, batch: Mapping[str, np.ndarray]) -> tuple[Callable[[Prompt], Result], float]:
        """The decoder of a row for batches like this one, and the seconds that
        `compile_ahead` took to compile it.
        """
        if way.method == "hf":
            return GenerateDecoder(self.hugging_face, self.pair.id_tokens, way.setting.search.beams), 0.0
        return self.ahead.get(_program(way, batch)) or (self._decoders(way).build(way.setting), 0.0)

    def _decoders(self, way: Way) -> Decoders:
        return self.decoders.with_head(()) if way.method == "whole_prompt" else self.decoders

    def compile_ahead(self, wanted: Iterable[tuple[Way, Mapping[str, np.ndarray]]]) -> None:
        """Compiles decoders, `suite.threads` at once.

        A program that does not compile is left to `build`, so that the row that needs
        the program says why.

        Args:
          wanted: rows that neither draw nor ask `generate`, each with a batch.
        """
        missing = {_program(*one): one for one in wanted if _program(*one) not in self.ahead}

        def compiled(one):
            began = time.perf_counter()
            decoders, setting = self._decoders(one[0]), one[0].setting
            decode, params = decoders.program(setting)
            arguments = params, decoders.trie
            program = jax.jit(decode).lower(*arguments, decoders.headed(prompt_of(one[1]), setting.drafter)).compile()

            def run(prompt: Prompt) -> Result:
                return program(*arguments, decoders.headed(prompt, setting.drafter))

            return run, time.perf_counter() - began

        with ThreadPoolExecutor(self.suite.threads) as pool:
            made = {name: pool.submit(compiled, one) for name, one in missing.items()}
        for name, one in made.items():
            if (error := one.exception()) is None:
                self.ahead[name] = one.result()
            else:
                self.say(f"{missing[name][0].setting.label}: not compiled ahead: {error}")


def _program(way: Way, batch: Mapping[str, np.ndarray]) -> tuple:
    return way.setting, way.method == "whole_prompt", batch["tokens"].shape


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
