"""What the rounds of a decode cost on one TPU, by the TPU's compiler.

Plain beam search, round 1 and a later round are programs of their own. Their layers lie
side by side, so that no loop hides a layer from the cost analysis. All layers of the
target cost the same. A program is therefore compiled with one and with two of them, and
the difference counts for each further layer. Parameters lie as the compiler prefers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout

from atspeed_jax.decoding.base import Prompt, Result, SharedHead
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.search import Search
from atspeed_jax.decoding.speculative import Models, State, begin, later_round, one_round
from atspeed_jax.items.trie import Trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.planning.tpu import seconds
from atspeed_jax.training.chips import Chip


class DecodeTimes(NamedTuple):
    """Seconds of the parts of a decode.

    Attributes:
      plain: plain beam search, all of its calls.
      first: round 1 of speculation.
      later: a round after the first.
    """

    plain: float
    first: float
    later: float

    def speculative(self, rounds: float) -> float:
        """Returns the seconds of a speculative decode that takes `rounds` rounds."""
        return self.first + (rounds - 1) * self.later


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The programs of a decode of one batch, to be compiled for a device.

    Attributes:
      target, draft: configs of the models; their parameters are in the model's dtype.
      search: resolved settings.
      trie: of the catalog.
      batch: users.
      prompt: tokens of a prompt.
      device: to compile for.
      chip: what the device is; None where nothing is timed.
      head: tokens of the prompt that are a shared head.
      first_token: token of the first logit of both models.
    """

    target: LlamaConfig
    draft: LlamaConfig
    search: SearchConfig
    trie: Trie
    batch: int
    prompt: int
    device: Any
    chip: Chip | None
    head: int = 0
    first_token: int = 0

    def times(self) -> DecodeTimes:
        """Compiles all programs and returns what the compiler estimates for them."""
        assert self.chip is not None, "times are those of a chip"
        few = [self._with_layers(count) for count in (1, 2)]
        parts = {name: [seconds(lower(one), self.chip) for one in few] for name, lower in PARTS.items()}
        return DecodeTimes(**{name: one + (self.target.layers - 1) * (two - one) for name, (one, two) in parts.items()})

    def plain(self) -> jax.stages.Lowered:
        """Lowers plain beam search."""
        how = {"beams": self.search.beams, "score_norm": self.search.score_norm}

        def decode(params, trie: Trie, prompt: Prompt) -> Result:
            return beam_search(self._step(self.target), params[0], trie, prompt, **how)

        return self._lower(decode)

    def first(self) -> jax.stages.Lowered:
        """Lowers round 1, which reads the prompt."""
        return self._lower(self._first_round)

    def later(self) -> jax.stages.Lowered:
        """Lowers a later round on the unfinished rows that are read at a time."""
        state = jax.eval_shape(self._first_round, *self._arguments())

        def next_round(params, trie: Trie, prompt: Prompt, state: State) -> State:
            models, search = self._models(params), Search.of(trie, prompt, self.search)
            return later_round(models, search, state, begin(models, search)[1])[0]

        return self._lower(next_round, state)

    def _first_round(self, params, trie: Trie, prompt: Prompt) -> State:
        models, search = self._models(params), Search.of(trie, prompt, self.search)
        levels = range(min(self.search.gamma + 1, search.length))
        return one_round(models, search, begin(models, search)[0], levels)[0]

    def _models(self, params) -> Models:
        target, draft = params
        return Models(self._step(self.target), target, ModelDrafter(self._step(self.draft)), draft)

    def _step(self, config: LlamaConfig) -> LlamaStep:
        return LlamaStep(config, unrolled=True, first_token=self.first_token)

    def _with_layers(self, count: int) -> Programs:
        return dataclasses.replace(self, target=dataclasses.replace(self.target, layers=count))

    def _lower(self, function: Callable, *state: State) -> jax.stages.Lowered:
        """Lowers a function of (parameters, trie, prompt), which replaces a state."""
        place = jax.sharding.SingleDeviceSharding(self.device)
        # In the default layout a TPU would transpose the kernels of query, key and value in
        # every program.
        lie = Format(Layout.AUTO, place) if self.device.platform == "tpu" else place
        layouts = (lie, *(place for _ in ("trie", "prompt", *state)))
        donated = range(3, 3 + len(state))
        return jax.jit(function, in_shardings=layouts, donate_argnums=donated).lower(*self._arguments(), *state)

    def _arguments(self) -> tuple:
        """Makes the shapes of (parameters, trie, prompt)."""
        size = self.batch, self.prompt
        tokens, valid = (cast(Any, jax.ShapeDtypeStruct(size, dtype)) for dtype in (jnp.int32, bool))
        params = tuple(_served(config) for config in (self.target, self.draft))
        trie = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.trie)
        if not self.head:
            return params, trie, Prompt(tokens, valid)
        caches = [jax.eval_shape(lambda c=c: self._step(c).init_cache(1, self.head)) for c in (self.target, self.draft)]
        read = SharedHead(cast(Any, jax.ShapeDtypeStruct((self.head,), jnp.int32)), *caches)
        return params, trie, Prompt(tokens, valid, head=read)


PARTS: dict[str, Callable[[Programs], jax.stages.Lowered]] = {
    "plain": Programs.plain,
    "first": Programs.first,
    "later": Programs.later,
}


def _served(config: LlamaConfig):
    """Makes the shapes of parameters in the dtype of their model, layers side by side."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(config.dtype)), param_shapes(config))
    return jax.eval_shape(unroll, shapes)
