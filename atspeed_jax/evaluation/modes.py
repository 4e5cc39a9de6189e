"""Every mode of the decoder side by side: target calls, quality, distance from exact
lists.

A mode is compared with what the target does alone, call by call (`Setting.baseline`).
Strict, stochastic and coupled mode must give the very same lists, relaxed mode lists of
the same law. relaxed_reference shows the bias of the public code.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, get_args

import numpy as np

from atspeed_jax.data.users import HeldOutUsers
from atspeed_jax.decoding.base import Mode, ScoreNorm
from atspeed_jax.decoding.config import TreeConfig, Widths
from atspeed_jax.decoding.selection import Relaxed, Strict, selection_of
from atspeed_jax.evaluation import metrics
from atspeed_jax.evaluation.evaluate import Evaluation
from atspeed_jax.items.catalog import expand_ids
from atspeed_jax.serving.decode_users import Decoded
from atspeed_jax.serving.decoders import NO_ITEM
from atspeed_jax.serving.lists import overlap
from atspeed_jax.serving.settings import Constraint, DrafterName, Setting
from atspeed_jax.utils.ranges import Beams, Nodes, Range, Repeats, Temperature, check_each_once, check_ranges

Tolerance = Annotated[float, Range(0, 1, "()", "0 is strict itself, which is measured anyway")]
STRICT, RELAXED = Strict(), Relaxed()
# What a row must have, of what `ModeTable` gives.
ROW_FIELDS = {
    **dict.fromkeys(("method", "mode", "score_norm", "constraint"), str),
    **dict.fromkeys(("K", "users", "seeds"), int),
    **dict.fromkeys(("quality", "difference_to_baseline"), dict),
    "widths": list,
    "target_calls_mean": float,
}


@dataclasses.dataclass(frozen=True)
class ModesConfig:
    """What the table combines.

    Attributes:
      beams: each K.
      main_beams: each K that is measured on all users; the others are measured on the
        evaluation's fixed few.
      widths, drafter: of the trees.
      norms: score norms; "stochastic" is measured under "trie" alone.
      tolerances, budgets: each in strict mode.
      temperature: of the modes that draw.
      seeds: draws per user in relaxed, coupled and relaxed_reference mode.
      constraints, modes: see `Setting` and `SearchConfig`.
      tuned: {K: a setting shown beside the trees of `widths`}; plain beam search, which
        it may be, is shown anyway.
    """

    beams: tuple[Beams, ...]
    main_beams: tuple[Beams, ...]
    widths: tuple[Widths, ...]
    drafter: DrafterName
    norms: tuple[ScoreNorm, ...]
    tolerances: tuple[Tolerance, ...]
    budgets: tuple[Nodes, ...]
    temperature: Temperature
    seeds: Repeats
    constraints: tuple[Constraint, ...] = ("trie",)
    modes: tuple[Mode, ...] = get_args(Mode)
    tuned: Mapping[int, Setting] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_ranges(self)
        check_each_once(self, "beams", "norms", "constraints", "modes")
        check_each_once(self, "widths", least=0 if self.tuned else 1)
        check_each_once(self, "main_beams", "tolerances", "budgets", least=0)
        for name, known in (("mode", Mode), ("norm", ScoreNorm), ("constraint", Constraint)):
            if stray := set(getattr(self, f"{name}s")) - set(get_args(known)):
                raise ValueError(f"{name} {min(stray)!r}: expected some of {', '.join(get_args(known))}")
        if self.drafter == "popularity" and "levels" in self.constraints:
            raise ValueError(
                "constraints holds 'levels' with drafter='popularity', which knows real ids alone: use drafter='draft'"
            )
        if stray := set(self.main_beams) - set(self.beams):
            raise ValueError(f"main_beams={self.main_beams}: K {min(stray)} is not among beams={self.beams}")
        if self.tuned and (missing := set(self.beams) - set(self.tuned)):
            raise ValueError(f"tuned has no setting for K {min(missing)}: expected one for each of beams={self.beams}")


def settings(config: ModesConfig, gamma: int) -> list[Setting]:
    """Lists every setting of the table, a baseline before what is compared with it.

    Args:
      config: what is combined.
      gamma: of the trees.
    """
    rows = []
    for constraint, norm, beams in itertools.product(config.constraints, config.norms, config.beams):
        modes = [mode for mode in config.modes if norm == "trie" or not selection_of(mode).needs_trie_norm]
        heat = {mode: config.temperature if selection_of(mode).draws else 1.0 for mode in modes}
        alone = [Setting.beam_search(beams, norm).searching(mode=mode, temperature=heat[mode]) for mode in modes]
        combined = [setting for setting in alone if setting.baseline == setting]
        trees = [Setting.strict(config.drafter, beams, TreeConfig(widths, gamma, norm)) for widths in config.widths]
        if config.tuned and config.tuned[beams].method == "speculative":
            trees.append(config.tuned[beams].searching(score_norm=norm))
        for strict in dict.fromkeys(trees):
            if STRICT.mode in modes:
                combined += [strict, *(strict.searching(tolerance=share) for share in config.tolerances)]
                combined += [strict.searching(budget=count) for count in config.budgets]
            drawn = [mode for mode in modes if selection_of(mode).draws]
            combined += [strict.searching(mode=mode, temperature=heat[mode]) for mode in drawn]
        rows += [dataclasses.replace(setting, constraint=constraint) for setting in combined]
    return rows


class ModeTable:
    """The rows of one evaluation, each a measurement of its store."""

    def __init__(self, evaluation: Evaluation, config: ModesConfig):
        self.evaluation, self.config = evaluation, config
        self.items_sorted, self.offsets = evaluation.dataset.catalog.items_by_id(evaluation.dataset.popularity)

    def rows(self) -> list[dict]:
        """Measures a row per setting; see `_row`."""
        evaluation = self.evaluation
        rows, raised = [], []
        made = settings(self.config, evaluation.decode.gamma)
        fitted = dict.fromkeys(evaluation.decoders.fitted(setting, raised.append) for setting in made)
        for line in dict.fromkeys(raised):
            evaluation.store.say(line)
        for setting in fitted:
            users = evaluation.everyone if setting.search.beams in self.config.main_beams else evaluation.some
            name = f"mode_{setting.label}_{len(users.users)}_{self.seeds(setting)}"
            rows.append(evaluation.store.remembered(name, lambda s=setting, u=users: self._row(s, u), ROW_FIELDS))
        return rows

    def seeds(self, setting: Setting) -> int:
        """Draws per user: `config.seeds` if the baseline is a sampler in relaxed mode."""
        return self.config.seeds if setting.baseline.search.mode == RELAXED.mode else 1

    def _row(self, setting: Setting, users: HeldOutUsers) -> dict:
        """Means over users and seeds; paired differences to the baseline with 95 %
        intervals over users.
        """
        config, decoded = self.evaluation.config, self.evaluation.decoded
        draws = [decoded(setting, users, seed) for seed in range(self.seeds(setting))]
        alone = [decoded(setting.baseline, users, seed) for seed in range(self.seeds(setting))]
        search = setting.search
        exact = Setting.beam_search(search.beams, search.score_norm)
        exact = decoded(dataclasses.replace(exact, constraint=setting.constraint), users)
        row = {
            "method": setting.method,
            "drafter": setting.drafter,
            "mode": search.mode,
            "tolerance": search.tolerance,
            "temperature": search.temperature,
            "score_norm": search.score_norm,
            "constraint": setting.constraint,
            "K": search.beams,
            "widths": list(search.widths),
            "budget": search.budget,
            "users": len(users.users),
            "seeds": len(draws),
            "target_calls_mean": float(np.mean([one.calls for one in draws])),
            "calls_by_user": np.mean([one.calls for one in draws], axis=0).tolist(),
            "coverage_by_level": None if draws[0].coverage is None else draws[0].coverage_by_level,
            "given_up_mean": float(np.mean([one.given_up for one in draws])),
            "overlap_with_exact": float(np.mean([overlap(one, exact) for one in draws])),
            "short_lists": float(np.mean([(one.ids == -1).any(1) for one in draws])),
            "places_without_item": float(np.mean([(one.ids == NO_ITEM).mean(1) for one in draws])),
            "mismatched_users": None,
            "near_tie_users": None,
        }
        if not selection_of(search.mode).tests_draws and not search.tolerance:  # else equal in law alone
            row |= self.evaluation.equality(setting, users, draws[0])
        sampling: dict = {"samples": config.bootstrap_samples, "seed": config.seed, "groups": users.groups}
        mine, theirs = self._quality(draws, users, search.beams), self._quality(alone, users, search.beams)
        row["quality"] = metrics.summarize(mine, **sampling)
        row["difference_to_baseline"] = metrics.compare(mine, theirs, **sampling)
        return row

    def _quality(self, decoded: Sequence[Decoded], users: HeldOutUsers, cut: int) -> dict[str, np.ndarray]:
        """Recall and NDCG at K per user, each [N], means over seeds."""
        lists = [expand_ids(one.ids, self.items_sorted, self.offsets, cut) for one in decoded]
        items = self.evaluation.dataset.catalog.items
        measured = [metrics.measure_lists(found, users.truths, (cut,), items=items) for found in lists]
        return {name: np.mean([one[name] for one in measured], axis=0) for name in measured[0]}
