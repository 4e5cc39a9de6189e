"""The choice among settings whose times were measured side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from atspeed_jax.utils.ranges import Samples, Seed, check_ranges

SAFE = 0.97  # the lower bound of the ratio to plain beam search that a choice needs
NEAR = 0.03  # a choice that is slower than the fastest setting by a larger share is timed again beside it
AGAIN = 3  # times at most


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Of 95 % intervals, over batches.

    Attributes:
      samples: draws of as many batches.
      seed: of the draws.
    """

    samples: Samples = 2000
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self)


def reason(rows: Sequence[Mapping], choice: str) -> str:
    """Says in a sentence why a setting was chosen, from the rows of all settings."""
    alone, *others = rows
    chosen = next(row for row in rows if row["label"] == choice)
    if choice != alone["label"]:
        return (
            f"{choice} takes {chosen['target_calls']:.2f} target calls instead of {alone['target_calls']:.2f} and is "
            f"{chosen['ratio']:.2f} times as fast as plain beam search (95 % interval {chosen['ratio_low']:.2f} to "
            f"{chosen['ratio_high']:.2f})"
        )
    if not others:
        return "plain beam search: no speculative setting can hold K"
    best = max(others, key=lambda row: row["ratio"])
    saved = alone["target_calls"] - best["target_calls"]
    why = "the draft saves no call" if saved < 0.005 else f"{saved:.2f} saved calls cost more time than they save"
    return (
        f"plain beam search: {why}; the best speculative setting, {best['label']}, is {best['ratio']:.2f} times as "
        f"fast (95 % interval {best['ratio_low']:.2f} to {best['ratio_high']:.2f}, at least {SAFE} is needed)"
    )


def ratio_bounds(alone: np.ndarray, own: np.ndarray, bootstrap: Bootstrap) -> tuple[float, float]:
    """95 % interval of the median ratio of two decoders' times, by a bootstrap over
    batches.

    Args:
      alone: [batches] milliseconds of plain beam search.
      own: [batches] milliseconds of a setting.
      bootstrap: samples and seed.
    """
    ratios = alone / own
    drawn = np.random.default_rng(bootstrap.seed).integers(len(ratios), size=(bootstrap.samples, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], 1), (2.5, 97.5))
    return float(low), float(high)


def fastest_safe(times: Mapping[str, np.ndarray], alone: str, bootstrap: Bootstrap) -> str:
    """The setting of least mean time among those that are surely not slower than plain
    beam search.

    Args:
      times: {label: [batches] milliseconds}.
      alone: the label of plain beam search, which is always safe.
      bootstrap: see `ratio_bounds`.
    """
    safe = [
        label for label in times if label == alone or ratio_bounds(times[alone], times[label], bootstrap)[0] >= SAFE
    ]
    return min(safe, key=lambda label: times[label].mean())


def confirmed_choice(
    times: Mapping[str, np.ndarray],
    alone: str,
    bootstrap: Bootstrap,
    time_again: Callable[[Sequence[str]], Mapping[str, np.ndarray]],
) -> tuple[Mapping[str, np.ndarray], str, float]:
    """Chooses a setting, and measures again where a faster one was not safe to choose.

    A setting that was faster than the choice, but not surely faster than plain beam
    search, may have been lucky. So if the choice is slower than the fastest setting by
    more than NEAR, plain beam search, the choice and all faster settings are timed
    again, side by side, at most AGAIN times.

    Args:
      times, alone, bootstrap: see `fastest_safe`.
      time_again: labels -> their times, measured again.

    Returns:
      (the times that decided, the choice, its mean time divided by that of the fastest
      setting, less 1).
    """
    for left in reversed(range(AGAIN + 1)):
        choice = fastest_safe(times, alone, bootstrap)
        mean = {label: own.mean() for label, own in times.items()}
        slower = float(mean[choice] / min(mean.values()) - 1)
        if slower <= NEAR or not left:
            break
        times = time_again([label for label in times if label == alone or mean[label] <= mean[choice]])
    return times, choice, slower
