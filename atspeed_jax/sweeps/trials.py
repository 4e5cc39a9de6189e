"""From a sweep's settings to the experiments it is made of."""

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple

from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.runs.config import ConfigError, load
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.utils.ranges import Seed, check_ranges

BaseFields = Callable[[str], MutableMapping]  # a config file -> its fields, nested dicts that may be changed


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What a sweep says beside its runs.

    The changes of a sweep are nested dicts of the fields of its base: `common` for
    all runs, and `runs` (name -> changes). A name that ends in "=", such as "draft=",
    replaces the whole section by another one. A run may also have `seeds`, which then
    stand for those of the sweep.

    Attributes:
      base: config file that every run begins from.
      seeds: every run is made once with each of them.
      seeded: the stages that take the seed, such as "train_draft".
      reference: name of the run that the others are compared with, user by user.
      measure: how every run is decoded and measured.
    """

    base: str
    seeds: tuple[Seed, ...]
    seeded: tuple[str, ...]
    reference: str
    measure: tuple[ModesConfig, ...]

    def __post_init__(self):
        check_ranges(self)


class Trial(NamedTuple):
    """One run of a sweep with one seed.

    Attributes:
      name: name of its directory, RUN_SEED.
      run: name of the run, under which it is compared.
      seed: seed of the stages `SweepConfig.seeded`.
      config: what is trained and measured.
    """

    name: str
    run: str
    seed: int
    config: ExperimentConfig


def trials(fields: Mapping, base_fields: BaseFields) -> tuple[SweepConfig, list[Trial]]:
    """Reads a sweep's fields and makes its experiments.

    Args:
      fields: nested dicts, lists and tuples of a sweep's config file.
      base_fields: runs a base config file. Each call returns new dicts.

    Returns:
      The sweep's settings, and every run with every seed it has, seed after seed.

    Raises:
      ConfigError: naming the run, for a field that the base does not have or a value
        that the field cannot take.
    """
    fields = dict(fields)
    runs, common = fields.pop("runs", None), fields.pop("common", {})
    if not isinstance(runs, Mapping) or not runs:
        raise ConfigError("config.runs: expected a dict, name -> changes, of at least one run")
    sweep = load(fields, SweepConfig)
    _check(sweep, runs)
    seeds_of = {run: changes.get("seeds", sweep.seeds) for run, changes in runs.items()}
    every_seed = dict.fromkeys(seed for seeds in (sweep.seeds, *seeds_of.values()) for seed in seeds)
    made = []
    for seed in every_seed:
        for run in (run for run in runs if seed in seeds_of[run]):
            changes = {name: value for name, value in runs[run].items() if name != "seeds"}
            experiment = base_fields(sweep.base)
            try:
                for change in (common, changes):
                    _change(experiment, change, "")
                # A stage that is not trained (None) takes no seed.
                trained = [stage for stage in sweep.seeded if experiment.get(stage, stage) is not None]
                _change(experiment, {stage: {"seed": seed} for stage in trained}, "")
                made.append(Trial(f"{run}_{seed}", run, seed, load(experiment, ExperimentConfig)))
            except ConfigError as error:
                raise ConfigError(f"config.runs.{run}: {error}") from error
    return sweep, made


def _check(sweep: SweepConfig, runs: Mapping) -> None:
    if not sweep.seeds or not sweep.measure:
        raise ConfigError("config.seeds and config.measure: expected at least one each")
    if sweep.reference not in runs:
        raise ConfigError(f"config.reference={sweep.reference!r}: expected one of the runs, {', '.join(runs)}")
    if not Path(sweep.base).is_file():
        raise ConfigError(f"config.base={sweep.base!r}: there is no such config file")
    for run, changes in runs.items():
        if not isinstance(changes, Mapping):
            raise ConfigError(f"config.runs.{run} is {changes!r}: expected a dict of the fields that it changes")


def chosen(made: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    """Returns the trials of these names, in the sweep's order.

    Raises:
      ConfigError: for a name that no trial has.
    """
    known = [trial.name for trial in made]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no experiment is called {', '.join(unknown)}; expected some of {', '.join(known)}")
    return [trial for trial in made if trial.name in names]


def _change(fields: MutableMapping, changes: Mapping, path: str) -> None:
    for key, value in changes.items():
        name = key.removesuffix("=")
        if name not in fields:
            raise ConfigError(f"{path}{name} is unknown; expected one of {', '.join(fields)}")
        if name != key or not isinstance(value, Mapping):
            fields[name] = value
        elif isinstance(fields[name], MutableMapping):
            _change(fields[name], value, f"{path}{name}.")
        else:
            raise ConfigError(f"{path}{name} is {fields[name]!r} in the base, which has no fields to change")
