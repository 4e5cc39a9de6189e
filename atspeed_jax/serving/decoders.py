"""Every way to decode under one roof: what to run, and the models and catalogue to run it with."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from atspeed_jax.decoding.base import DecodeError, Mode, Prompt, Result, ScoreNorm, StepModel
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig, resolve_widths
from atspeed_jax.decoding.draft import Drafter, ModelDrafter, PopularityDrafter
from atspeed_jax.decoding.sharded import decode_on_mesh
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.catalog import MAX_LENGTH
from atspeed_jax.items.levels import level_trie
from atspeed_jax.items.trie import ItemTrie, Trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.unroll import unroll
from atspeed_jax.utils.ranges import BatchSize, Beams, Nodes, PartialShare, Range, Temperature, Width, check_ranges

Method = Literal["beam_search", "speculative"]
DrafterName = Literal["none", "draft", "popularity"]
Widths = tuple[Width | Literal["all"], ...]
Constraint = Literal["trie", "levels"]
NO_ITEM = -2  # id of codes that no item has


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How a tree is drafted and scored. widths: drafted nodes of levels 1..L-1, ints or "all".

    gamma: most levels drafted at once. score_norm, budget: see SearchConfig. unroll: layers of both models side by side
    (`Decoders.unrolled`).
    """

    widths: Widths
    gamma: Annotated[int, Range(1, MAX_LENGTH)]
    score_norm: ScoreNorm
    budget: Nodes | None = None
    unroll: bool = False

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to decode.

    Plain beam search has drafter "none" and no widths. mode, tolerance, temperature, budget, row_share: see
    `SearchConfig`. constraint: "trie", ids of items alone, or "levels", any known code of each level, as the paper's
    reference decodes; ids are NO_ITEM where no item has the codes.
    """

    method: Method
    drafter: DrafterName
    beams: Beams
    widths: Widths
    gamma: Annotated[int, Range(0, MAX_LENGTH)]
    score_norm: ScoreNorm
    mode: Mode = "strict"
    tolerance: PartialShare = 0.0
    temperature: Temperature = 1.0
    budget: Nodes | None = None
    constraint: Constraint = "trie"
    row_share: BatchSize = SearchConfig.row_share

    def __post_init__(self):
        check_ranges(self)

    @property
    def label(self) -> str:
        widths = "-".join(map(str, self.widths)) or "none"
        label = f"{self.method}_{self.drafter}_K{self.beams}_w{widths}_g{self.gamma}_{self.score_norm}"
        if self.budget is not None:
            label += f"_b{self.budget}"
        if self.mode != "strict":
            label += f"_{self.mode}_T{self.temperature:g}"
        if self.tolerance:
            label += f"_tolerance{self.tolerance:g}"
        if self.row_share != SearchConfig.row_share:
            label += f"_rows{self.row_share}"
        return label + ("_levels" if self.constraint == "levels" else "")

    @property
    def baseline(self) -> Setting:
        """What the target does alone, call by call: plain beam search, or its own sampler."""
        mode = "relaxed" if self.mode in ("coupled", "relaxed_reference") else self.mode
        alone = plain(self.beams, self.score_norm)
        return dataclasses.replace(alone, mode=mode, temperature=self.temperature, constraint=self.constraint)


def plain(beams: int, score_norm: ScoreNorm) -> Setting:
    """Plain beam search, the baseline of every speed-up."""
    return Setting("beam_search", "none", beams, (), 0, score_norm)


def speculative(drafter: DrafterName, beams: int, decode: DecodeConfig) -> Setting:
    """Strict speculative beam search with the given drafter."""
    return Setting("speculative", drafter, beams, decode.widths, decode.gamma, decode.score_norm, budget=decode.budget)


def strict(drafter: DrafterName, beams: int, decode: DecodeConfig) -> Setting:
    """`speculative` with a drafter, `plain` with "none": one list, whoever drafts."""
    return plain(beams, decode.score_norm) if drafter == "none" else speculative(drafter, beams, decode)


@dataclasses.dataclass(frozen=True)
class _Plain:
    """Plain beam search as a function of what it reads."""

    step: StepModel
    beams: int
    score_norm: ScoreNorm
    mode: Mode
    temperature: float

    def __call__(self, params, trie: ItemTrie, prompt: Prompt) -> Result:
        how = {"beams": self.beams, "score_norm": self.score_norm, "mode": self.mode, "temperature": self.temperature}
        return beam_search(self.step, params, trie, prompt, **how)


@dataclasses.dataclass(frozen=True)
class _Speculative:
    """Speculative beam search as a function of what it reads."""

    step: StepModel
    drafter: Drafter
    config: SearchConfig

    def __call__(self, params, trie: ItemTrie, prompt: Prompt) -> Result:
        target_params, draft_params = params
        models = self.step, target_params, self.drafter, draft_params
        return speculative_beam_search(*models, trie, prompt, config=self.config)


@dataclasses.dataclass(frozen=True, eq=False)
class Decoders:
    """Target, draft and catalogue, ready to decode any `Setting`.

    prior: `items.trie.popularity_prior`. prefixes: what "all" means per score norm (`prefixes_by_norm`). draft and
    draft_params may be None where no draft model is used. step: what makes a model of a config. mesh: where all arrays
    lie and users are split (`decode_on_mesh`); None for one device.
    """

    target: LlamaConfig
    target_params: Any
    draft: LlamaConfig | None
    draft_params: Any
    trie: Trie
    prior: tuple[jax.Array, ...]
    prefixes: Mapping[ScoreNorm, tuple[int, ...]]
    step: Callable[[LlamaConfig], StepModel] = LlamaStep
    mesh: Mesh | None = None

    def build(self, setting: Setting) -> Callable[[Prompt], Result]:
        """The jitted decoder of a setting as a function of the prompt alone.

        Raises DecodeError for widths that cannot work, or the popularity prior, which the catalogue's own trie alone
        has, with any other constraint.
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
        """(decode, params) of a setting: what `build` runs as decode(params, trie, prompt)."""
        step = self.step(self.target)
        if setting.method == "beam_search":
            how = _Plain(step, setting.beams, setting.score_norm, setting.mode, setting.temperature)
            return how, self.target_params
        config = SearchConfig(
            setting.beams,
            resolve_widths(setting.widths, self._prefixes(setting), setting.beams),
            setting.gamma,
            setting.score_norm,
            setting.tolerance,
            setting.mode,
            setting.temperature,
            setting.budget,
            setting.row_share,
        )
        if setting.drafter == "draft":
            drafter, params = ModelDrafter(self.step(self.draft)), self.draft_params
        else:
            drafter, params = PopularityDrafter(), self.prior
        return _Speculative(step, drafter, config), (self.target_params, params)

    def fitted(self, setting: Setting, say: Callable[[str], None]) -> Setting:
        """The setting with widths, and a budget, that can hold its K: what is too small is raised to what K needs, and
        `say` is told. Raises DecodeError for another number of widths than the ids have levels to draft."""
        if setting.method == "beam_search":
            return setting
        prefixes = self._prefixes(setting)
        resolve_widths(setting.widths, prefixes, 1)
        least = [min(setting.beams, have) for have in prefixes]
        widths = tuple(w if w == "all" else max(w, need) for w, need in zip(setting.widths, least, strict=False))
        budget = None if setting.budget is None else max(setting.budget, setting.beams)
        raised = dataclasses.replace(setting, widths=widths, budget=budget)
        if raised != setting:
            told = [(name, getattr(setting, name), getattr(raised, name)) for name in ("widths", "budget")]
            changes = ", ".join(f"{name} {old} -> {new}" for name, old, new in told if old != new)
            say(f"raised to what K={setting.beams} needs: {changes}")
        return raised

    def _prefixes(self, setting: Setting) -> tuple[int, ...]:
        """How many nodes each level has to draft."""
        if setting.constraint == "trie":
            return self.prefixes[setting.score_norm]
        return tuple(itertools.accumulate(level_trie(self.trie).row_width, operator.mul))

    def _build(self, setting: Setting, trie: ItemTrie) -> Callable[[Prompt], Result]:
        decode, params = self.program(setting)
        if self.mesh is None:
            return functools.partial(decode, params, trie)
        return lambda prompt: decode_on_mesh(decode, params, trie, prompt, self.mesh)

    def unrolled(self) -> Decoders:
        """The same, faster where calls are short, but longer to compile: layers of both models lie side by side
        (`models.unroll`), in copies of their own."""
        return dataclasses.replace(
            self,
            target_params=unroll(self.target_params),
            draft_params=None if self.draft_params is None else unroll(self.draft_params),
            step=functools.partial(LlamaStep, unrolled=True),
        )

    def in_float64(self) -> Decoders:
        """The same in double precision; to be called, and its decoders run, under `jax.enable_x64(True)`."""

        def widen(tree):
            return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)

        draft = None if self.draft is None else dataclasses.replace(self.draft, dtype="float64")
        return dataclasses.replace(
            self,
            target=dataclasses.replace(self.target, dtype="float64"),
            target_params=widen(self.target_params),
            draft=draft,
            draft_params=widen(self.draft_params),
            prior=widen(self.prior),
        )


@jax.jit
def _with_ids(result: Result, trie: Trie) -> Result:
    """The rows of the distinct ids that have the tokens of a result, NO_ITEM where none has."""
    row, found = trie.find(result.tokens)
    return result.replace(ids=jnp.where(found, row, jnp.where(result.valid, NO_ITEM, 0)))
