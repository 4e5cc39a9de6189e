import json
from dataclasses import dataclass
from typing import Literal, Optional

import pytest

from atspeed_jax.runs.config import ConfigError, load


@dataclass(frozen=True)
class OptimConfig:
    learning_rate: float
    warmup_steps: int

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate = {self.learning_rate}, expected more than 0")


@dataclass(frozen=True)
class TextSource:
    data_dir: str


@dataclass(frozen=True)
class MadeUpSource:
    users: int
    seed: int


@dataclass(frozen=True)
class Experiment:
    name: str
    optim: OptimConfig
    widths: tuple[int | str, ...]
    norm: Literal["vocab", "trie"]
    limit: int | None
    source: TextSource | MadeUpSource
    betas: tuple[float, float]
    remat: bool
    stages: tuple[OptimConfig, ...] = ()
    note: Optional[str] = None  # noqa: UP045 (the older spelling is understood too)


def config() -> dict:
    return {
        "name": "toy",
        "optim": {"learning_rate": 1e-3, "warmup_steps": 100},
        "widths": ["all", 64, 96],
        "norm": "vocab",
        "limit": None,
        "source": {"users": 500, "seed": 0},
        "betas": (0.9, 0.95),
        "remat": False,
    }


def test_every_kind_of_field_is_converted():
    raw = config()
    raw["stages"] = [{"learning_rate": 1, "warmup_steps": 2}, {"learning_rate": 0.5, "warmup_steps": 3}]
    experiment = load(raw, Experiment)
    assert experiment == Experiment(
        name="toy",
        optim=OptimConfig(1e-3, 100),
        widths=("all", 64, 96),
        norm="vocab",
        limit=None,
        source=MadeUpSource(500, 0),
        betas=(0.9, 0.95),
        remat=False,
        stages=(OptimConfig(1.0, 2), OptimConfig(0.5, 3)),
        note=None,
    )
    assert type(experiment.stages[0].learning_rate) is float
    hash(experiment)  # usable as a static argument


def test_the_fields_are_left_as_they_are():
    raw = config()
    before = json.dumps(raw)
    load(raw, Experiment)
    assert json.dumps(raw) == before


def test_int_or_float_keeps_an_int():
    @dataclass(frozen=True)
    class Number:
        value: float | int

    assert type(load({"value": 3}, Number).value) is int
    assert type(load({"value": 3.0}, Number).value) is float


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optim.learning_rat", 1.0, "config.optim.learning_rat is unknown; did you mean config.optim.learning_rate?"),
        ("warmup_steps", 5, "config.warmup_steps is unknown; did you mean config.optim.warmup_steps?"),
        ("optim.zzz", 5, "config.optim.zzz is unknown; the nearest field is config.optim."),
        ("source.uesrs", 5, "config.source.uesrs is unknown; did you mean config.source.users?"),
        ("optim.warmup_steps", "many", "config.optim.warmup_steps is 'many' (str), expected int"),
        ("optim.warmup_steps", 1.5, "config.optim.warmup_steps is 1.5 (float), expected int"),
        ("optim.warmup_steps", True, "config.optim.warmup_steps is True (bool), expected int"),
        ("optim.learning_rate", False, "config.optim.learning_rate is False (bool), expected float"),
        ("remat", 1, "config.remat is 1 (int), expected bool"),
        ("name", None, "config.name is None (NoneType), expected str"),
        ("norm", "items", "config.norm is 'items' (str), expected one of 'vocab', 'trie'"),
        ("limit", "none", "config.limit is 'none' (str), expected int or None"),
        ("widths", 64, "config.widths is 64 (int), expected a tuple of int or str"),
        ("widths", "all", "config.widths is 'all' (str), expected a tuple of int or str"),
        ("widths", ["all", 1.5], "config.widths[1] is 1.5 (float), expected int or str"),
        ("betas", (0.9,), "config.betas is (0.9,) with 1 entries, expected a tuple of (float, float)"),
        ("optim", 3, "config.optim is 3, expected the fields of OptimConfig: learning_rate, warmup_steps"),
        ("source", 3, "config.source is 3 (int), expected TextSource or MadeUpSource"),
        ("optim.learning_rate", -1.0, "config.optim: learning_rate = -1.0, expected more than 0"),
        ("stages", [{"learning_rate": 1}], "config.stages[0].warmup_steps is missing; expected int"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    raw = config()
    place = raw
    *parents, name = path.split(".")
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(ConfigError) as error:
        load(raw, Experiment)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("path", ["name", "optim", "optim.warmup_steps", "source.seed", "remat"])
def test_a_missing_field_is_named(path):
    raw = config()
    place = raw
    *parents, name = path.split(".")
    for parent in parents:
        place = place[parent]
    del place[name]
    with pytest.raises(ConfigError, match=f"config.{path} is missing; expected"):
        load(raw, Experiment)


def test_a_type_that_is_not_understood_is_the_programmers_error():
    @dataclass(frozen=True)
    class Odd:
        values: dict[str, int]

    with pytest.raises(TypeError, match=r"config\.values: type"):
        load({"values": {"a": 1}}, Odd)
