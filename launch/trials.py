"""From a sweep's config to the experiments it is made of."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.utils.ranges import Seed, check_ranges
from launch.config import load
from launch.overrides import run_config


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """base: config file that every run begins from. seeds: each run is made once with each, as the seed of the stages
    `seeded`. reference: run that the others are compared with in pairs. measure: how all of them decode.

    What is changed, `common` for all runs and `runs` (name -> changes), are nested dicts of the base's own fields; a
    run may also have `seeds` of its own.
    """

    base: str
    seeds: tuple[Seed, ...]
    seeded: tuple[str, ...]
    reference: str
    measure: tuple[ModesConfig, ...]

    def __post_init__(self):
        check_ranges(self)


class Trial(NamedTuple):
    """One experiment of a sweep; name is that of its directory, run what it is compared as."""

    name: str
    run: str
    seed: int
    config: ExperimentConfig


def trials(config: ConfigDict) -> tuple[SweepConfig, list[Trial]]:
    """The sweep's own settings, and every run with every seed it has, seed after seed.

    Raises ConfigError, naming the run, for a field that the base does not have or a value it cannot take.
    """
    fields = config.to_dict()
    runs, common = fields.pop("runs", None), fields.pop("common", {})
    if not isinstance(runs, dict) or not runs:
        raise ConfigError("config.runs: expected a dict, name -> changes, of at least one run")
    sweep = load(fields, SweepConfig)
    if not sweep.seeds or not sweep.measure:
        raise ConfigError("config.seeds and config.measure: expected at least one each")
    if sweep.reference not in runs:
        raise ConfigError(f"config.reference={sweep.reference!r}: expected one of the runs, {', '.join(runs)}")
    if not Path(sweep.base).is_file():
        raise ConfigError(f"config.base={sweep.base!r}: there is no such config file")
    made = []
    own_seeds = {run: changes.pop("seeds", sweep.seeds) for run, changes in runs.items()}
    for seed in dict.fromkeys(seed for own in (sweep.seeds, *own_seeds.values()) for seed in own):
        seeds = {stage: {"seed": seed} for stage in sweep.seeded}
        for run, changes in runs.items():
            if seed not in own_seeds[run]:
                continue
            experiment = run_config(sweep.base)
            try:
                for change in (common, changes, seeds):
                    _change(experiment, change, "")
                made.append(Trial(f"{run}_{seed}", run, seed, load(experiment, ExperimentConfig)))
            except (ConfigError, TypeError) as error:
                raise ConfigError(f"config.runs.{run}: {error}") from error
    return sweep, made


def chosen(made: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    """The trials of these names, in the sweep's order. Raises ConfigError for a name that none has."""
    known = [trial.name for trial in made]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no experiment is called {', '.join(unknown)}; expected some of {', '.join(known)}")
    return [trial for trial in made if trial.name in names]


def _change(config: ConfigDict, changes: dict, path: str) -> None:
    for name, value in changes.items():
        if name not in config:
            raise ConfigError(f"{path}{name} is unknown; expected one of {', '.join(config)}")
        if isinstance(value, dict):
            _change(config[name], value, f"{path}{name}.")
        else:
            config[name] = value
