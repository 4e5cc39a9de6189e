"""Every way to decode under one roof: models and catalog, ready for any `Setting`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from atspeed_jax.decoding.base import DecodeError, Prompt, Result, ScoreNorm, SharedHead, StepModel
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig, raised_widths, resolve_widths
from atspeed_jax.decoding.draft import Drafter, ModelDrafter, PopularityDrafter
from atspeed_jax.decoding.shared_head import check_head, read_head
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.levels import level_trie
from atspeed_jax.items.trie import ItemTrie, Trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.unroll import unroll
from atspeed_jax.serving.settings import Constraint, DrafterName, Setting
from atspeed_jax.serving.sharded import decode_on_mesh, splits_models

NO_ITEM = -2  # id of codes that no item has


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Plain beam search as a hashable function: a static argument of a program."""

    step: StepModel
    search: SearchConfig

    def __call__(self, params, trie: ItemTrie, prompt: Prompt) -> Result:
        fields = ("beams", "score_norm", "mode", "temperature")
        how = {name: getattr(self.search, name) for name in fields}
        return beam_search(self.step, params, trie, prompt, **how)


@dataclasses.dataclass(frozen=True)
class SpeculativeSearch:
    """Speculative beam search as a hashable function; see `BeamSearch`."""

    step: StepModel
    drafter: Drafter
    search: SearchConfig

    def __call__(self, params, trie: ItemTrie, prompt: Prompt) -> Result:
        target_params, draft_params = params
        models = self.step, target_params, self.drafter, draft_params
        return speculative_beam_search(*models, trie=trie, prompt=prompt, config=self.search)


@dataclasses.dataclass(frozen=True, eq=False)
class Decoders:
    """Target, draft and catalog, ready to decode any `Setting`.

    Attributes:
      target, draft: configs of the two models. draft may be None where no draft model
        is used.
      target_params, draft_params: their parameters.
      trie: of the catalog.
      prior: what the popularity prior drafts by (`items.trie.popularity_prior`).
      prefixes: what the width "all" means, per score norm (`prefixes_by_norm`).
      step: makes a model of a config, and of a `first_token` if some logits are left
        out.
      mesh: where all arrays lie and users are split (`decode_on_mesh`); None for one
        device.
      first_code: no id has a token below it (`Catalog.first_code`).
      head: what all prompts begin with, if it was read once (`with_head`).
    """

    target: LlamaConfig
    target_params: Any
    draft: LlamaConfig | None
    draft_params: Any
    trie: Trie
    prior: tuple[jax.Array, ...]
    prefixes: Mapping[ScoreNorm, tuple[int, ...]]
    step: Callable[..., StepModel] = LlamaStep
    mesh: Mesh | None = None
    first_code: int = 0
    head: SharedHead | None = None

    def build(self, setting: Setting) -> Callable[[Prompt], Result]:
        """Builds the jitted decoder of a setting, a function of the prompt alone.

        Raises:
          DecodeError: widths or a budget that cannot hold K, an unknown constraint, or
            the popularity prior under "levels": the prior knows real ids alone.
        """
        if setting.constraint not in get_args(Constraint):
            raise DecodeError(f"constraint={setting.constraint!r}: expected 'trie' or 'levels'")
        if setting.constraint == "trie":
            return self._build(setting, self.trie)
        if setting.drafter == "popularity":
            raise DecodeError("constraint='levels' with drafter='popularity', which knows real ids alone: use 'draft'")
        decode = self._build(setting, level_trie(self.trie))
        return lambda prompt: _with_ids(decode(prompt), self.trie)

    def program(self, setting: Setting) -> tuple[Callable, Any]:
        """Gives what `build` compiles.

        Returns:
          (decode, params): the decoder of the setting runs as decode(params, trie,
          prompt).
        """
        first = self.first_logit(setting.search.score_norm)
        make = functools.partial(self.step, first_token=first) if first else self.step
        step = make(self.target)
        if setting.method == "beam_search":
            return BeamSearch(step, setting.search), self.target_params
        search = setting.search.resolve(self._prefixes(setting))
        if setting.drafter == "draft":
            assert self.draft is not None, "Setting.drafter names a draft model"
            drafter, params = ModelDrafter(make(self.draft)), self.draft_params
        else:
            drafter, params = PopularityDrafter(), self.prior
        return SpeculativeSearch(step, drafter, search), (self.target_params, params)

    def first_logit(self, norm: ScoreNorm) -> int:
        """Returns the first token whose logits the models compute; 0 for all tokens.

        See `first_logit`. Over a mesh that splits the vocabulary a part of the head would
        be moved between devices, so there it is 0.
        """
        return 0 if splits_models(self.mesh) else first_logit(self.target, self.first_code, norm)

    def fitted(self, setting: Setting, say: Callable[[str], None]) -> Setting:
        """Raises widths and a budget that are too small to hold K.

        Args:
          setting: any; plain beam search is returned as it is.
          say: gets a text that says what was raised.

        Returns:
          The setting, with each width at least min(K, nodes of its level) and a budget
          of at least K.

        Raises:
          DecodeError: another number of widths than the ids have levels to draft.
        """
        if setting.method == "beam_search":
            return setting
        search, prefixes = setting.search, self._prefixes(setting)
        resolve_widths(search.widths, prefixes, 1)
        widths = raised_widths(search.widths, prefixes, search.beams)
        budget = None if search.budget is None else max(search.budget, search.beams)
        raised = setting.searching(widths=widths, budget=budget)
        if raised != setting:
            fields = [(name, getattr(search, name), getattr(raised.search, name)) for name in ("widths", "budget")]
            changes = ", ".join(f"{name} {old} -> {new}" for name, old, new in fields if old != new)
            say(f"raised to what K={search.beams} needs: {changes}")
        return raised

    def _prefixes(self, setting: Setting) -> tuple[int, ...]:
        """The number of nodes that each level has to draft."""
        if setting.constraint == "trie":
            return self.prefixes[setting.search.score_norm]
        return tuple(itertools.accumulate(level_trie(self.trie).row_width, operator.mul))

    def _build(self, setting: Setting, trie: ItemTrie) -> Callable[[Prompt], Result]:
        (decode, params), mesh = self.program(setting), self.mesh
        if mesh is None:
            run = functools.partial(decode, params, trie)
        else:
            run = lambda prompt: decode_on_mesh(decode, params, trie, prompt, mesh)  # noqa: E731
        return run if self.head is None else lambda prompt: run(self.headed(prompt, setting.drafter))

    def with_head(self, tokens: Sequence[int] | np.ndarray) -> Decoders:
        """The same decoders, which have read what all prompts begin with.

        Their decoders refuse a prompt that begins otherwise (DecodeError).

        Args:
          tokens: [H], such as `data.prompts.shared_head`; none for no shared head.
        """
        if not len(tokens):
            return dataclasses.replace(self, head=None)
        row, draft = np.asarray(tokens, np.int32), ()
        target = read_head(self.step(self.target), self.target_params, row)
        if self.draft is not None and self.draft_params is not None:
            draft = read_head(self.step(self.draft), self.draft_params, row)
        return dataclasses.replace(self, head=SharedHead(row, target, draft))

    def headed(self, prompt: Prompt, drafter: DrafterName) -> Prompt:
        """Gives the shared head, if any, to prompts that a drafter is to draft for.

        Raises:
          DecodeError: a prompt does not begin with the head (`check_head`).
        """
        if self.head is None:
            return prompt
        check_head(prompt, np.asarray(self.head.tokens))
        return prompt.replace(head=self.head if drafter == "draft" else self.head.replace(draft=()))

    def _read_again(self, other: Decoders) -> Decoders:
        """The other decoders with the same shared head, if any."""
        return other if self.head is None else other.with_head(np.asarray(self.head.tokens))

    def unrolled(self) -> Decoders:
        """The same decoders with the layers of both models side by side
        (`models.unroll`).

        Decoding is faster where calls are short; compilation takes longer, and the
        parameters lie in memory a second time. Matrices are joined where no mesh splits
        them.
        """
        lay_out = functools.partial(unroll, join=not splits_models(self.mesh))
        apart = dataclasses.replace(
            self,
            target_params=lay_out(self.target_params),
            draft_params=None if self.draft_params is None else lay_out(self.draft_params),
            step=functools.partial(LlamaStep, unrolled=True),
        )
        return self._read_again(apart)

    def in_float64(self) -> Decoders:
        """The same decoders in double precision.

        Call it, and run its decoders, under `jax.enable_x64(True)`.
        """

        def widen(tree):
            return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)

        draft = None if self.draft is None else dataclasses.replace(self.draft, dtype="float64")
        wide = dataclasses.replace(
            self,
            target=dataclasses.replace(self.target, dtype="float64"),
            target_params=widen(self.target_params),
            draft=draft,
            draft_params=widen(self.draft_params),
            prior=widen(self.prior),
        )
        return self._read_again(wide)


def first_logit(model: LlamaConfig, first_code: int, norm: ScoreNorm) -> int:
    """Returns the first token whose logits a decode needs; 0 for all tokens.

    Under trie norm a score is read off the logits of codes alone. With a text vocabulary
    the head's other columns are most of its product; without words they are not worth
    another shape.

    Args:
      model: of the vocabulary.
      first_code: no id has a token below it.
      norm: of the scores.
    """
    words = first_code >= model.vocab_size - first_code
    return first_code if norm == "trie" and words else 0


def computed_head(model: LlamaConfig, first: int) -> LlamaConfig:
    """Returns a config whose vocabulary is the logits that a call computes, to count by.

    A call reads no embedding but its tokens', and of the head the columns from `first` on
    (`first_logit`).
    """
    return dataclasses.replace(model, vocab_size=model.vocab_size - first)


@jax.jit
def _with_ids(result: Result, trie: Trie) -> Result:
    """Replaces the ids of a result by the rows of the distinct ids that have its
    tokens, NO_ITEM where no id has them.
    """
    row, found = trie.find(result.tokens)
    return result.replace(ids=jnp.where(found, row, jnp.where(result.valid, NO_ITEM, 0)))
