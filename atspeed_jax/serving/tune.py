"""Self-tuning: which way to decode is fastest on this hardware, per K and batch size.

Plain beam search and every setting of a grid decode the same batches of validation
users, so acceptance is real and every time is that of a whole list. Test users are
never read.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.base import DecodeError, ScoreNorm
from atspeed_jax.decoding.config import SearchConfig, Widths
from atspeed_jax.serving import timing
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig, DrafterName, Setting
from atspeed_jax.utils.files import read_json
from atspeed_jax.utils.program_memory import forget_programs
from atspeed_jax.utils.ranges import (
    BatchSize,
    Beams,
    Nodes,
    Range,
    Repeats,
    Samples,
    Seed,
    Users,
    check_each_once,
    check_ranges,
)

SAFE = 0.97  # the lower bound of the ratio to plain beam search that a choice needs
NEAR = 0.03  # a choice that is slower than the fastest setting by a larger share is timed again beside it
AGAIN = 3  # times at most


class TuneError(ValueError):
    """A grid that cannot be tuned, or a table that lacks what is asked for."""


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """What is tuned, and on how many users.

    Attributes:
      beams: K, each tuned by itself.
      batch_sizes: each tuned by itself.
      widths, drafters, budgets, row_shares: the grid. A budget of None lets a call read
        all nodes.
      batches, users: least number of batches, and of validation users, per batch size.
      hopeless: a setting whose first pass takes more than this many times the fastest
        setting's time is timed no more.
      repeats: timings of a batch, of which the median counts.
      samples: of the bootstrap over batches.
      seed: of the users and the bootstrap.
    """

    beams: tuple[Beams, ...]
    batch_sizes: tuple[BatchSize, ...]
    widths: tuple[Widths, ...]
    drafters: tuple[DrafterName, ...]
    budgets: tuple[Nodes | None, ...]
    row_shares: tuple[BatchSize, ...] = (SearchConfig.row_share,)
    batches: Annotated[int, Range(1, 1_000_000)] = 10
    users: Users = 100
    hopeless: Annotated[float, Range(1, 1e9)] = 1.5
    repeats: Repeats = 3
    samples: Samples = 2000
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self)
        check_each_once(self, "beams", "batch_sizes", "widths", "drafters", "budgets", "row_shares")
        if stray := set(self.drafters) - {"draft", "popularity"}:
            raise TuneError(f"drafter {min(stray)!r}: expected 'draft' or 'popularity'; beam search is always measured")


def parse_widths(text: str) -> Widths:
    """Reads widths: "all,64,96" -> ("all", 64, 96).

    Raises:
      TuneError: any other text.
    """
    try:
        return tuple("all" if part == "all" else int(part) for part in text.split(","))
    except ValueError:
        raise TuneError(f"widths {text!r}: expected ints or 'all' with commas between, such as all,64,96") from None


def grid(
    config: TuneConfig, decode: DecodeConfig, decoders: Decoders, beams: int, say: Callable[[str], None]
) -> list[Setting]:
    """Lists the settings to be measured for one K.

    Args:
      config: the grid.
      decode: the run's widths, gamma and score norm. Where the grid holds the run's
        widths, they are raised to what K needs.
      decoders: build each setting once, to see whether it can work.
      beams: K.
      say: gets a line for each setting that is left out, with the reason.

    Returns:
      Plain beam search, and every setting that can hold K.
    """
    settings = [Setting.beam_search(beams, decode.score_norm)]
    own = decoders.fitted(Setting.strict("draft", beams, decode), say).search.widths
    every = dict.fromkeys(own if widths == decode.widths else widths for widths in config.widths)
    for drafter, widths, budget, share in itertools.product(config.drafters, every, config.budgets, config.row_shares):
        setting = Setting.strict(drafter, beams, dataclasses.replace(decode, widths=widths, budget=budget))
        setting = setting.searching(row_share=share)
        try:
            decoders.build(setting)
        except DecodeError as error:
            say(f"left out: {error}")
        else:
            settings.append(setting)
    return settings


def tune(
    decoders: Decoders,
    dataset: Dataset,
    decode: DecodeConfig,
    config: TuneConfig,
    shape: BatchShape,
    say: Callable[[str], None],
) -> list[dict]:
    """Measures every setting of the grid, and chooses one per K and batch size.

    Args:
      decoders: the models and the catalog.
      dataset: whose validation users are decoded.
      decode: the run's widths, gamma and score norm.
      config: the grid.
      shape: of the batches, but for their size.
      say: gets a line for each K and batch size before it is measured.

    Returns:
      A row per K and batch size: {"K", "batch", "choice": label, "slower_than_best",
        "settings": [{"label", "setting", "target_calls", "one_call_share", "time_ms",
        "ratio", "ratio_low"}]}. time_ms is the mean over batches of the median time of
        a batch. ratio is plain beam search's time divided by that, the median over
        batches; ratio_low its lower 95 % bound; both are None for a setting that was
        hopeless in the first pass. slower_than_best: see `confirmed_choice`.
    """
    everyone = held_out_users(dataset, "valid")
    rows = []
    for batch_size in config.batch_sizes:
        users = everyone.sample(max(config.users, config.batches * batch_size), config.seed)
        batches = users.batches(dataset, dataclasses.replace(shape, batch_size=batch_size))
        for beams in config.beams:
            say(f"K={beams}, batch {batch_size}: {len(users.users)} users in {len(batches)} batches")
            settings = {setting.label: setting for setting in grid(config, decode, decoders, beams, say)}
            rows.append({"K": beams, "batch": batch_size} | _measure(decoders, settings, batches, config))
    return rows


def _measure(decoders: Decoders, settings: Mapping[str, Setting], batches: Sequence[dict], config: TuneConfig) -> dict:
    """The choice and the rows of all settings, by label, on these batches."""
    forget_programs()
    users = sum(int((batch["row"] >= 0).sum()) for batch in batches)
    built = {label: decoders.build(setting) for label, setting in settings.items()}
    first = {label: decode_users(decode, batches, users) for label, decode in built.items()}
    alone = next(iter(settings))
    limit = config.hopeless * min(decoded.seconds for decoded in first.values())
    kept = {label: built[label] for label in settings if label == alone or first[label].seconds <= limit}
    times = timing.latencies(kept, batches, repeats=config.repeats)

    def time_again(labels: Sequence[str]) -> dict[str, np.ndarray]:
        return timing.latencies({label: kept[label] for label in labels}, batches, repeats=3 * config.repeats)

    last_times, choice, slower = confirmed_choice(times, alone, config, time_again)
    rows = []
    for label, setting in settings.items():
        together = last_times if label in last_times else times  # a ratio is of times measured side by side
        decoded, own = first[label], together.get(label)
        rows.append(
            {
                "label": label,
                "setting": setting.row,
                "target_calls": float(decoded.calls.mean()),
                "one_call_share": float((decoded.calls == 1).mean()),
                "time_ms": 1e3 * decoded.seconds / len(batches) if own is None else float(own.mean()),
                "ratio": None if own is None else float(np.median(together[alone] / own)),
                "ratio_low": None if own is None else ratio_bound(together[alone], own, config),
            }
        )
    return {"choice": choice, "slower_than_best": slower, "settings": rows}


def ratio_bound(alone: np.ndarray, own: np.ndarray, config: TuneConfig) -> float:
    """Lower 95 % bound of the median ratio of two decoders' times, by a bootstrap over
    batches.

    Args:
      alone: [batches] milliseconds of plain beam search.
      own: [batches] milliseconds of a setting.
      config: samples and seed.
    """
    ratios = alone / own
    drawn = np.random.default_rng(config.seed).integers(len(ratios), size=(config.samples, len(ratios)))
    return float(np.percentile(np.median(ratios[drawn], 1), 2.5))


def fastest_safe(times: Mapping[str, np.ndarray], alone: str, config: TuneConfig) -> str:
    """The setting of least mean time among those that are surely not slower than plain
    beam search.

    Args:
      times: {label: [batches] milliseconds}.
      alone: the label of plain beam search, which is always safe.
      config: of the bootstrap (`ratio_bound`).
    """
    safe = [label for label in times if label == alone or ratio_bound(times[alone], times[label], config) >= SAFE]
    return min(safe, key=lambda label: times[label].mean())


def confirmed_choice(
    times: Mapping[str, np.ndarray],
    alone: str,
    config: TuneConfig,
    time_again: Callable[[Sequence[str]], Mapping[str, np.ndarray]],
) -> tuple[Mapping[str, np.ndarray], str, float]:
    """Chooses a setting, and measures again where a faster one was not safe to choose.

    A setting that was faster than the choice, but not surely faster than plain beam
    search, may have been lucky. So if the choice is slower than the fastest setting by
    more than NEAR, plain beam search, the choice and all faster settings are timed
    again, side by side, at most AGAIN times.

    Args:
      times, alone, config: see `fastest_safe`.
      time_again: labels -> their times, measured again.

    Returns:
      (the times that decided, the choice, its mean time divided by that of the fastest
      setting, less 1).
    """
    for left in reversed(range(AGAIN + 1)):
        choice = fastest_safe(times, alone, config)
        mean = {label: own.mean() for label, own in times.items()}
        slower = float(mean[choice] / min(mean.values()) - 1)
        if slower <= NEAR or not left:
            break
        times = time_again([label for label in times if label == alone or mean[label] <= mean[choice]])
    return times, choice, slower


def tuned_setting(directory: Path, beams: int, batch: int, score_norm: ScoreNorm) -> Setting:
    """Reads the choice for one K from the tuned.json that `launch.tune_decoder` wrote.

    Args:
      directory: of the run.
      beams: K.
      batch: batch size; the choice of the nearest measured one counts.
      score_norm: that the choice must have been made for.

    Raises:
      TuneError: no such file, K or norm (the message says what the file has), or a
        setting that cannot be read.
    """
    path = directory / "tuned.json"
    if not path.is_file():
        raise TuneError(f"there is no {path}; make it in the checkout with python -m launch.tune_decoder")
    table = read_json(path, "delete it and tune again", {"score_norm": str, "rows": list})
    if table["score_norm"] != score_norm:
        raise TuneError(f"{path} was made for score_norm={table['score_norm']!r}, not {score_norm!r}; tune again")
    rows = [row for row in table["rows"] if row["K"] == beams]
    if not rows:
        known = sorted({row["K"] for row in table["rows"]})
        raise TuneError(f"{path} has no K={beams}, only {known}; tune again with --beams={beams}")
    row = min(rows, key=lambda row: (abs(row["batch"] - batch), row["batch"]))
    found = next(entry["setting"] for entry in row["settings"] if entry["label"] == row["choice"])
    try:
        return Setting.from_row(found)
    except DecodeError as error:
        raise TuneError(f"{path} holds {error}; delete it and tune again") from error
