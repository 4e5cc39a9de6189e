"""Where the time of a list goes: draft calls, target calls, and everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.model_calls import TimedList, timed_lists
from atspeed_jax.serving.settings import Setting

if TYPE_CHECKING:
    from atspeed_jax.evaluation.evaluate import Evaluation

USERS = 5  # on whom a breakdown is measured: it is a mean of shares, not a comparison


def chosen_settings(settings: Sequence[Setting]) -> list[Setting]:
    """The settings of one K whose time is broken down: plain beam search and the first
    speculative setting, which is the tuned one where there is one.

    Args:
      settings: of one K, in the order in which they are measured.
    """
    plain = [setting for setting in settings if setting.method == "beam_search"]
    speculative = [setting for setting in settings if setting.method == "speculative"]
    return [*plain[:1], *speculative[:1]]


def breakdown_of(evaluation: Evaluation, setting: Setting) -> dict[str, float]:
    """Where the time of a setting goes (`breakdown`), measured once and remembered."""
    config = evaluation.config

    def measure() -> dict[str, float]:
        users = evaluation.everyone.sample(min(USERS, config.latency_users), config.seed + 2)
        single = evaluation.batches(users, batch_size=1)
        return breakdown(evaluation.decoders, setting, single, repeats=config.latency_repeats)

    return evaluation.store.remembered(f"breakdown_{setting.label}", measure, {"rest": float})


def can_break_down(decoders: Decoders) -> bool:
    """Whether calls of draft and target can be told apart and timed alone: two
    different models on one device.
    """
    return decoders.mesh is None and decoders.draft != decoders.target


def breakdown(decoders: Decoders, setting: Setting, batches: Sequence[dict], *, repeats: int) -> dict[str, float]:
    """Measures where the time of a setting goes.

    Args:
      decoders: see `can_break_down`.
      setting: in strict mode.
      batches: prompts of one user each, all of one shape.
      repeats: timings of each batch; their median counts.

    Returns:
      {"target", "draft", "rest"}: mean milliseconds of a list. "target" and "draft" are
      the sums of the model calls, each timed alone. "rest" is the time of the whole
      list less these two; where calls are faster inside a program it is below 0.
    """
    parts = [_parts(decoders, one) for one in timed_lists(decoders, setting, batches, repeats=repeats)]
    return {name: 1e3 * float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _parts(decoders: Decoders, one: TimedList) -> dict[str, float]:
    """Seconds of one list by part."""
    target = sum(seconds for call, seconds in one.calls if call.config == decoders.target)
    draft = sum(seconds for call, seconds in one.calls if call.config != decoders.target)
    return {"target": target, "draft": draft, "rest": one.seconds - target - draft}
