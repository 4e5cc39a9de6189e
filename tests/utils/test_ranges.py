"""Every numeric field of every config, asked for 0, -1, NaN, infinity, a huge number and a string.

The walk reads the type hints, so a new field without a range, or a new config without an example, fails here.
"""

import dataclasses
import math
import runpy
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pytest

from atspeed_jax.alignment.align import AlignConfig
from atspeed_jax.alignment.teacher import TeacherConfig
from atspeed_jax.benchmarks.generate import GenerateConfig
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.simulate import SyntheticConfig
from atspeed_jax.decoding.config import SearchConfig, TreeConfig
from atspeed_jax.evaluation.baselines import CovisitationConfig
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.ids.kmeans import KMeansConfig
from atspeed_jax.ids.rqvae import RqvaeConfig
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import PretrainedConfig
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.planning.speedup import SpeedupConfig
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import DataConfig, ExperimentConfig, ModelConfig, ServeConfig, TrainConfig
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.sweeps.trials import SweepConfig
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.training.sharding import MeshConfig
from atspeed_jax.tuning.decide import Bootstrap
from atspeed_jax.tuning.tune import TuneConfig
from atspeed_jax.utils import ranges as R
from config_classes import config_classes
from launch.config import load

TINY = load(
    runpy.run_path(str(Path(__file__).resolve().parents[2] / "configs/tiny.py"))["get_config"](), ExperimentConfig
)
LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.1, targets=("q_proj",))
MODES = ModesConfig(
    beams=(5,), main_beams=(), widths=((5, 5),), drafter="draft", norms=("vocab",), tolerances=(0.1,), budgets=(9,),
    temperature=1.0, seeds=1,
)  # fmt: skip
EXAMPLES = {
    ExperimentConfig: TINY,
    ServeConfig: ServeConfig.of(TINY),
    DataConfig: TINY.data,
    SyntheticConfig: TINY.data.synthetic,
    PromptConfig: TINY.data.prompt,
    ModelConfig: TINY.target,
    LlamaConfig: TINY.target.llama(100),
    RopeScalingConfig: RopeScalingConfig("llama3", 8.0),
    PretrainedConfig: PretrainedConfig("llama", LORA, bos=1),
    TargetLayersConfig: TargetLayersConfig((0, 3)),
    LoraConfig: LORA,
    TrainConfig: TINY.train_target,
    FitConfig: TINY.train_target.fit(100),
    OptimConfig: TINY.train_target.fit(100).optim,
    AlignConfig: TINY.align,
    TeacherConfig: TINY.teacher,
    DecodeConfig: dataclasses.replace(TINY.decode, budget=64),
    EvaluateConfig: dataclasses.replace(TINY.evaluate, grid_beams=(3,), grid_widths=((20, 20, 20),), users=5),
    MeshConfig: MeshConfig(1, 1, 1),
    TreeConfig: TreeConfig((5, 5), 2, "vocab", budget=9),
    SearchConfig: SearchConfig((5, 5), 2, "vocab", budget=9, beams=5),
    Setting: Setting("draft", SearchConfig((5, 5), 2, "vocab", budget=9, beams=5)),
    Bootstrap: Bootstrap(),
    TuneConfig: TuneConfig(beams=(1,), batch_sizes=(1,), check=(("all", 2),)),
    ModesConfig: MODES,
    CovisitationConfig: CovisitationConfig(5, 20, 0.9),
    SweepConfig: SweepConfig("configs/tiny.py", (0,), ("train_draft",), "sft", (MODES,)),
    SpeedupConfig: SpeedupConfig(("v5e",), ("pair",), (5,), (1,), (("all", 64, 96),), 100, "bfloat16", 9, False),
    IdsConfig: IdsConfig(),
    KMeansConfig: KMeansConfig(),
    RqvaeConfig: RqvaeConfig(),
    GenerateConfig: GenerateConfig(("4M",), (1,), (5,), (80,), ("all", 64, 96), 3, 1.0),
}
NEGATIVE = {"target_layers": "counted from the last layer"}  # fields that take -1
WRONG = (-1, math.nan, math.inf, 10**12, "many")  # in every numeric field
ZERO = {  # fields that take 0, and what it means there; of one config alone, or of all
    "active_share": "all events of a user at one moment",
    "adapter_dropout": "none",
    "AlignConfig.alpha": "the next item alone is learned",
    "alpha_warmup": "none",
    "average": "no moving average",
    "b1": "no momentum",
    "b2": "the last gradient alone",
    "bos": "the first token of the vocabulary",
    "commitment": "vectors do not move towards their codes",
    "core": "nobody is filtered out",
    "coverage_weight": "TreeKD alone",
    "density_weight": "the first term alone",
    "drift": "interests stay",
    "dropout": "none",
    "grid": "no exhaustive grid is timed",
    "head": "no token is shared",
    "KMeansConfig.epochs": "no minibatches",
    "min_rating": "all ratings count",
    "noise": "none",
    "on_policy": "none",
    "patience": "never stops early",
    "seconds": "three rounds of each cell",
    "seed": "a seed like any other",
    "SweepConfig.seeds": "the same",
    "shuffle": "none",
    "spread": "all items of a cluster are one point",
    "target_layers": "the first layer",
    "tolerance": "nothing is given up",
    "twins": "none",
    "warmup_steps": "none",
    "weight_decay": "none",
    "zipf": "all items are equally popular",
}


class Leaf(NamedTuple):
    """path: names, and numbers for entries of tuples. kinds: where further dataclasses lie on the way there."""

    path: tuple
    hint: Any
    kinds: tuple[tuple[tuple, type], ...]


def leaves(hint, path: tuple = (), kinds: tuple = ()) -> Iterator[Leaf]:
    """Every number below a type hint, in all members of unions; AssertionError for one without a range."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    assert hint not in (int, float), f"{path} has no range: give it one, Annotated[{hint.__name__}, Range(low, high)]"
    if origin is Annotated:
        assert isinstance(arguments[1], R.Range), path
        assert arguments[0] in (int, float), path
        yield Leaf(path, hint, kinds)
    elif origin is tuple:
        for place, kind in enumerate(arguments[:1] if arguments[1:] == (Ellipsis,) else arguments):
            yield from leaves(kind, (*path, place), kinds)
    elif origin in (typing.Union, types.UnionType):
        for member in arguments:
            yield from leaves(member, path, kinds)
    elif dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        for field in dataclasses.fields(hint):
            yield from leaves(hints[field.name], (*path, field.name), (*kinds, (path, hint)))
    elif path[-1:] != ("tuned",):  # the one dict, of ModesConfig: code makes it of Settings, which are walked too
        assert hint in (bool, str, types.NoneType) or origin is Literal, f"{path}: {hint} is not understood"


def written(path: tuple) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def plain(config) -> dict:
    """A config as a file has it."""

    def fields(pairs):
        return {name: value for name, value in pairs if name != "tuned"}

    return dataclasses.asdict(config, dict_factory=fields)


def changed(value, path: tuple, new):
    """A nested dict or tuple with another value at a path; a tuple that is too short holds it alone."""
    if not path:
        return new
    if isinstance(path[0], int):
        entries = list(value or (None,))
        return (*entries[: path[0]], changed(entries[path[0]], path[1:], new), *entries[path[0] + 1 :])
    return value | {path[0]: changed(value[path[0]], path[1:], new)}


def raw_for(leaf: Leaf) -> dict:
    raw: Any = None
    for path, kind in leaf.kinds:  # from the root on: an example in place of None, or of another member of a union
        raw = changed(raw, path, plain(EXAMPLES[kind]))
    return raw


KINDS = [*config_classes(), Setting]


def numbers(kind: type) -> list[Leaf]:
    return list(leaves(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_in_a_config_file_is_refused_by_its_full_path(kind):
    for leaf in numbers(kind):
        raw, path = raw_for(leaf), written(leaf.path)
        for value in WRONG[any(part in NEGATIVE for part in leaf.path) :]:
            with pytest.raises(ConfigError) as error:
                load(changed(raw, leaf.path, value), kind)
            # The one is out of range, the other of another type.
            assert str(error.value).startswith((f"config.{path}=", f"config.{path} is ")), (path, value, error.value)
            assert "expected" in str(error.value)
            assert repr(value)[:3] in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_given_from_python_is_refused_by_its_name(kind):
    own = [leaf for leaf in numbers(kind) if len(leaf.kinds) == 1]
    for leaf in own:
        name, example = leaf.path[0], EXAMPLES[kind]
        for value in WRONG[any(part in NEGATIVE for part in leaf.path) :]:
            with pytest.raises(R.RangeError) as error:
                dataclasses.replace(example, **{name: changed(getattr(example, name), leaf.path[1:], value)})
            assert str(error.value).startswith(f"{written(leaf.path)}={value!r}: expected a "), (leaf.path, error.value)


def test_zero_is_taken_only_where_it_means_something():
    taken = set()
    for kind in KINDS:
        for leaf in (leaf for leaf in numbers(kind) if len(leaf.kinds) == 1):
            name, example = leaf.path[0], EXAMPLES[kind]
            value = changed(getattr(example, name), leaf.path[1:], typing.get_args(leaf.hint)[0](0))
            if told := {name, f"{kind.__name__}.{name}"} & set(ZERO):
                dataclasses.replace(example, **{name: value})
                taken |= told
            else:
                with pytest.raises(R.RangeError, match=f"^{name}"):
                    dataclasses.replace(example, **{name: value})
    assert taken == set(ZERO)


@pytest.mark.parametrize(
    ("ends", "inside", "outside"),
    [
        ("[]", (1, 2), (0.999, 2.001)),
        ("(]", (1.001, 2), (1, 2.001)),
        ("[)", (1, 1.999), (0.999, 2)),
        ("()", (1.001, 1.999), (1, 2)),
    ],
)
def test_the_ends_of_a_range(ends, inside, outside):
    one = R.Range(1, 2, ends)
    assert all(map(one.holds, inside))
    assert not any(map(one.holds, (*outside, math.nan, math.inf, -math.inf)))


def test_a_number_without_a_range_is_found():
    @dataclasses.dataclass(frozen=True)
    class NewConfig:
        limits: tuple[float | None, ...]

    with pytest.raises(AssertionError, match="has no range"):
        list(leaves(NewConfig))


def test_numbers_of_numpy_are_numbers():
    value = np.int64(3)
    assert dataclasses.replace(MODES, seeds=value).seeds == 3
    with pytest.raises(R.RangeError, match="seeds=True: expected a whole number"):
        dataclasses.replace(MODES, seeds=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a'b", '"a\'b"'), ("a" * 130, f"'{'a' * 120}'..."), (10**130, f"1{'0' * 119}..."), (3, "3"), (b"ab", "b'ab'")],
)
def test_a_long_value_is_cut_for_a_message(value, expected):
    assert R.shown(value) == expected


def test_a_number_with_many_digits_is_cut_in_the_message():
    with pytest.raises(R.RangeError, match=r"beams\[0\]=70+\.\.\.: expected a whole number") as told:
        dataclasses.replace(MODES, beams=(7 * 10**4000,))
    assert len(str(told.value)) < 300
