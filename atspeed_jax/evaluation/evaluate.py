"""The evaluation of a whole run: list quality, target calls, equality with plain beam
search, time.

Every finished measurement is a small file of a `MeasurementStore`, so a stopped
evaluation continues where it was. A store belongs to one set of models and settings:
measurements of other models are neither read nor overwritten.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import HeldOutUsers, held_out_users
from atspeed_jax.decoding.config import Widths
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.evaluation import baselines, breakdown, metrics, precision, quality
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.evaluation.store import MeasurementStore
from atspeed_jax.items.filters import unseen_items
from atspeed_jax.serving import timing
from atspeed_jax.serving.decode_users import Decoded, Keys, count_differences, decode_users, find_ids, without_seen
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import agreement
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.utils.program_memory import forget_programs


@dataclasses.dataclass(eq=False)
class Evaluation:
    """One evaluation: fixed users, decoders, settings, and the store of what is
    measured.

    Attributes:
      decode: settings that every K is measured with.
      config: users, K, batches and the rest of the grid.
      history: newest items of a user that a prompt holds.
      tuned: {K: how this machine decodes it fastest}, measured at batch 1.
      everyone: the test users that are measured.
      some: those of them on whom the rest of the grid is measured.
    """

    store: MeasurementStore
    dataset: Dataset
    decoders: Decoders
    decode: DecodeConfig
    config: EvaluateConfig
    _: dataclasses.KW_ONLY
    history: int
    target_fingerprint: str
    tuned: Mapping[int, Setting] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        config, everyone = self.config, held_out_users(self.dataset, "test")
        self.everyone = everyone.sample(len(everyone.users) if config.users is None else config.users, config.seed)
        self.some = self.everyone.sample(config.grid_users, config.seed + 1)
        self._decoded: dict[tuple[str, int, int, int | None], Decoded] = {}

    def settings(self, full: bool) -> list[tuple[Setting, HeldOutUsers]]:
        """Lists every setting with its users, plain beam search before what is compared
        with it.

        Args:
          full: decode the rest of the grid for all users, not for some.
        """
        config, norm = self.config, self.decode.score_norm
        some = self.everyone if full else self.some
        rows = []
        for beams in (*config.beams, *config.grid_beams):
            main = beams in config.beams
            rows.append((Setting.beam_search(beams, norm), self.everyone if main else some))
            trees = [self._tree(beams, widths) for widths in (self.decode.widths, *config.grid_widths)]
            if beams in self.tuned and self.tuned[beams].method == "speculative":
                rows.append((self.tuned[beams], self.everyone if main else some))
                if not config.beside_tuned:
                    continue
            for tree in dict.fromkeys(trees):
                for drafter in config.drafters:
                    users = self.everyone if main and tree == trees[0] else some
                    rows.append((dataclasses.replace(tree, drafter=drafter), users))
        return rows

    def _tree(self, beams: int, widths: Widths) -> Setting:
        """Strict speculation with these widths, raised where K needs wider ones."""
        setting = Setting.strict("draft", beams, dataclasses.replace(self.decode, widths=widths))
        return self.decoders.fitted(setting, self.store.say)

    def quality(self) -> dict:
        """Measures recall, NDCG and hits of the target, popularity and co-visitation.

        Returns:
          `quality.by_method`, with seen items kept and removed, and paired differences.
        """
        habits: dict[quality.Habit, dict] = {
            habit: self.store.remembered(f"quality_{habit}", functools.partial(self._quality, removed), quality.FIELDS)
            for habit, removed in zip(quality.HABITS, (False, True), strict=True)
        }
        return {"target_fingerprint": self.target_fingerprint} | quality.by_method(habits)

    def _quality(self, remove_seen: bool) -> dict:
        """The measurements of one habit: `quality.measure` of all three methods."""
        users, config, catalog = self.everyone, self.config, self.dataset.catalog
        seen = [np.unique(items) if remove_seen else items[:0] for items in users.histories]
        ids = self._target_ids(seen if remove_seen else None)
        lists = {"target": quality.Found(unseen_items(ids, seen, *catalog.items_by_id(self.dataset.popularity)), ids)}
        for name, make in (("popularity", self._popularity), ("covisitation", self._covisitation)):
            lists[name] = quality.Found.of_items(catalog, make(remove_seen=remove_seen))
        sampling: dict = {"samples": config.bootstrap_samples, "seed": config.seed}
        return quality.measure(lists, catalog, users.truths, seen, **sampling, groups=users.groups)

    def _target_ids(self, seen: Sequence[np.ndarray] | None) -> np.ndarray:
        """The ids of the target's lists for all users, [N, K].

        Args:
          seen: per user, items that a list may not hold, excluded by an exact search;
            None for no exclusion.
        """
        setting, users = Setting.beam_search(self.config.list_size, self.decode.score_norm), self.everyone
        if seen is None:
            return self.decoded(setting, users).ids
        self.store.say(f"decoding {len(users.users)} users without the items they have seen: {setting.label}")
        forget_programs()
        decoder_of = without_seen(self.decoders, setting, self.dataset.catalog, seen)
        return find_ids(decoder_of, self.batches(users), users.users)[0]

    def _popularity(self, *, remove_seen: bool) -> np.ndarray:
        return baselines.popularity_lists(
            self.dataset.popularity, self.everyone.histories, k=self.config.list_size, remove_seen=remove_seen
        )

    def _covisitation(self, *, remove_seen: bool) -> np.ndarray:
        data, histories = self.dataset, self.everyone.histories
        how = {"k": self.config.list_size, "remove_seen": remove_seen}
        return baselines.covisitation_lists(data.train, data.popularity, histories, baselines.COVISITATION, **how)

    def row(self, setting: Setting, users: HeldOutUsers) -> dict:
        """Measures calls, acceptance and equality of one setting.

        Returns:
          A decoding row of the report, but for what `times` measures.
        """
        name = f"row_{setting.label}_{len(users.users)}"
        return self.store.remembered(name, lambda: self._row(setting, users), {"method": str, "K": int})

    def _row(self, setting: Setting, users: HeldOutUsers) -> dict:
        search = setting.search
        alone = setting.method == "speculative" and self.is_tuned(setting)
        decoded = self.decoded(setting, users, batch_size=1 if alone else None)  # tuned for one user at a time
        length = self.dataset.catalog.length
        speculated = decoded.reached is not None
        return {
            "method": setting.method,
            "drafter": setting.drafter,
            "mode": search.mode,
            "score_norm": search.score_norm,
            "K": search.beams,
            "widths": list(search.widths),
            "budget": search.budget,
            "users": len(users.users),
            "target_calls_mean": float(decoded.calls.mean()),
            "accept_steps_mean": float(length - decoded.calls.mean()),
            "one_call_share": float((decoded.calls == 1).mean()),
            "acceptance_by_level": decoded.acceptance_by_level if speculated else None,
            "coverage_by_level": decoded.coverage_by_level if speculated else None,
            "batch_rounds_mean": decoded.batch_rounds / decoded.batches,
            "users_per_s": None if alone else len(users.users) / decoded.seconds,
            "target_fingerprint": self.target_fingerprint,
        } | self.equality(setting, users, decoded)

    def is_tuned(self, setting: Setting) -> bool:
        return self.tuned.get(setting.search.beams) == setting

    def times(self, settings: Sequence[Setting]) -> dict[str, dict]:
        """Measures latency at batch 1 of several settings of one K, interleaved.

        Returns:
          {label: {"latency_ms_p50", "latency_ms_p95", "ws_vs_beam_search",
          "ws_interval"}}.
        """
        name = "latencies_" + hashlib.sha256(repr(sorted(s.label for s in settings)).encode()).hexdigest()[:12]
        return self.store.remembered(
            name, lambda: self._times(settings), dict.fromkeys((s.label for s in settings), dict)
        )

    def _times(self, settings: Sequence[Setting]) -> dict[str, dict]:
        config = self.config
        forget_programs()
        built = {setting.label: self.decoders.build(setting) for setting in settings}
        single = self.batches(self.everyone.sample(config.latency_users, config.seed + 2), batch_size=1)
        latency = timing.latencies(built, single, repeats=config.latency_repeats)
        base = latency[settings[0].baseline.label]
        sampling: dict = {"samples": config.bootstrap_samples, "seed": config.seed}
        ratios = {label: metrics.bootstrap_interval(base / latency[label], **sampling) for label in built}
        return {
            label: {
                "latency_ms_p50": float(np.percentile(latency[label], 50)),
                "latency_ms_p95": float(np.percentile(latency[label], 95)),
                "ws_vs_beam_search": ratios[label].mean,
                "ws_interval": [ratios[label].low, ratios[label].high],
            }
            for label in built
        }

    def batches(self, users: HeldOutUsers, batch_size: int | None = None) -> list[dict]:
        """The users' prompts, as every measurement but latency decodes them.

        Args:
          users: all users get the config's buckets, fewer users the longest one alone.
          batch_size: None for that of the config.
        """
        shape = self.config.batch_shape(self.history)
        buckets = shape.buckets if users is self.everyone else (max(shape.buckets),)
        size = batch_size or shape.batch_size
        return users.batches(self.dataset, dataclasses.replace(shape, buckets=buckets, batch_size=size))

    def keys(self, setting: Setting, users: HeldOutUsers, seed: int = 0) -> Keys | None:
        """One random key per user for the modes that draw; None for strict mode.

        A user's key is the same whatever users share the batch.
        """
        return user_keys(self.config.seed + seed, users.users) if selection_of(setting.search.mode).draws else None

    def decoded(self, setting: Setting, users: HeldOutUsers, seed: int = 0, batch_size: int | None = None) -> Decoded:
        """Decodes the users.

        Plain beam search, with which every other row is compared, is decoded once and
        remembered in memory.

        Args:
          setting, users: who is decoded, and how.
          seed: of the draw, in the modes that draw.
          batch_size: None for that of the config.
        """
        key = (setting.label, len(users.users), seed, batch_size)
        if key not in self._decoded:
            seeded, batched = f", seed {seed}" if seed else "", f", batches of {batch_size}" if batch_size else ""
            self.store.say(f"decoding {len(users.users)} users: {setting.label}{seeded}{batched}")
            forget_programs()  # no two settings share one
            batches, keys = self.batches(users, batch_size), self.keys(setting, users, seed)
            decoded = decode_users(self.decoders.build(setting), batches, len(users.users), keys)
            if setting.method != "beam_search":
                return decoded
            self._decoded[key] = decoded
        return self._decoded[key]

    def equality(self, setting: Setting, users: HeldOutUsers, decoded: Decoded) -> dict:
        """Compares lists with those of the target alone.

        Args:
          setting, users: of the lists.
          decoded: the lists, drawn with seed 0.

        Returns:
          {"mismatched_users", "near_tie_users"}, see `count_differences`. Where the
          target computes below float32, a speculative setting also has "agreement", see
          `precision`.
        """
        alone, keys = self.decoded(setting.baseline, users), self.keys(setting, users)
        found = count_differences(self.decoders, setting, setting.baseline, decoded, alone, self.batches(users), keys)
        counts = dict(zip(("mismatched_users", "near_tie_users"), found, strict=True))
        model, size = self.decoders.target, precision.other_batch_size(self.config.batch_size)
        if setting.method == "beam_search" or not precision.is_low(model):
            return counts
        itself = agreement(self.decoded(setting.baseline, users, batch_size=size), alone)
        how = {"arithmetic": model.arithmetic, "batch_size": size}
        how |= {"samples": self.config.bootstrap_samples, "seed": self.config.seed}
        return counts | {"agreement": precision.compare(agreement(decoded, alone), itself, **how)}


def evaluate(evaluation: Evaluation, *, full: bool) -> tuple[dict, list[dict]]:
    """Runs an evaluation: all decoding first, then latency and where the time goes, K
    by K.

    Args:
      evaluation, full: what is measured, see `Evaluation.settings`.

    Returns:
      (quality, decoding rows) of the report.
    """
    measured = evaluation.quality()
    pairs = evaluation.settings(full)
    rows = [evaluation.row(setting, users) for setting, users in pairs]
    times: dict[str, dict] = {}
    for beams in dict.fromkeys(setting.search.beams for setting, _ in pairs):
        alike = [setting for setting, _ in pairs if setting.search.beams == beams]
        times |= evaluation.times(alike)
        if beams in evaluation.config.beams and breakdown.can_break_down(evaluation.decoders):
            for setting in breakdown.chosen_settings(alike):  # now: these decoders are compiled
                times[setting.label]["breakdown_ms"] = breakdown.breakdown_of(evaluation, setting)
    described = zip(rows, (setting for setting, _ in pairs), strict=True)
    return measured, [row | times[one.label] | {"tuned": evaluation.is_tuned(one)} for row, one in described]
