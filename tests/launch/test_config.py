"""ConfigDict and frozen dataclasses; what `load` makes of fields is in tests/runs/test_config.py."""

from dataclasses import dataclass

import pytest
from ml_collections import ConfigDict, config_dict

from atspeed_jax.models.pretrained import PretrainedConfig
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import ExperimentConfig
from configs import foreign, own
from launch.config import load, to_fields


@dataclass(frozen=True)
class Source:
    users: int
    directory: str | None = None


@dataclass(frozen=True)
class Experiment:
    limit: int | None
    source: Source
    note: str | None = None
    sources: tuple[Source, ...] = ()


def config() -> ConfigDict:
    return ConfigDict({"limit": None, "source": {"users": 500}})


def test_wrappers_are_taken_off_at_every_depth():
    raw = config()
    raw.sources = [{"users": 1}, ConfigDict({"users": 2})]
    assert load(raw, Experiment) == Experiment(None, Source(500), None, (Source(1), Source(2)))


def test_plain_dicts_work_too():
    assert load(config().to_dict(), Experiment) == load(config(), Experiment)


def test_references_and_placeholders():
    raw = config()
    raw.limit = raw.source.get_ref("users")
    raw.note = config_dict.placeholder(str)
    assert load(raw, Experiment).limit == 500
    raw.source.users = 7
    assert load(raw, Experiment).limit == 7
    raw.source = ConfigDict({"users": config_dict.required_placeholder(int)})
    with pytest.raises(ConfigError, match=r"config.source.users has no value; expected int.*--config.source.users="):
        load(raw, Experiment)


def test_a_dataclass_becomes_fields_again_that_can_be_changed():
    raw = to_fields(load(config(), Experiment))
    assert load(raw, Experiment) == load(config(), Experiment)
    raw.limit, raw.source.users, raw.source.directory, raw.note = 5, 9, "here", "tried"
    changed = load(raw, Experiment)
    assert (changed.limit, changed.source, changed.note) == (5, Source(9, "here"), "tried")
    raw.limit = None
    assert load(raw, Experiment).limit is None


@pytest.mark.parametrize(
    ("options", "trained", "kind", "widths"),
    [
        ("3", False, "item", (64, 96)),
        ("4,minionerec", False, "instruction", (64, 96, 96)),
        ("3,onerec,lora", True, "chat", (64, 96)),
        ("1,draft", False, "item", ()),
        ("3,layers", False, "item", (64, 96)),
    ],
)
def test_a_model_of_others(options, trained, kind, widths):
    config = load(foreign.get_config(options), ExperimentConfig)
    assert (config.train_target is not None) == (config.target.lora is not None) == trained
    assert config.data.prompt.kind == kind
    assert config.decode.widths == widths
    assert isinstance(config.draft, PretrainedConfig) == ("draft" in options)
    assert isinstance(config.draft, TargetLayersConfig) == (config.train_draft is None) == ("layers" in options)


@pytest.mark.parametrize("options", ["", "9", "x,lora", "3,minionrec"])
def test_a_model_of_others_that_is_not_described(options):
    with pytest.raises(ValueError, match=rf"'{options}': expected the number of codes of an id, 1 to 8, and some of"):
        foreign.get_config(options)


@pytest.mark.parametrize("size", own.SIZES)
@pytest.mark.parametrize("levels", [1, 3, 4, 8])
def test_a_config_for_your_interactions(size, levels):
    config = load(own.get_config(f"{levels},{size}"), ExperimentConfig)
    assert (config.data.source, config.data.synthetic) == ("ingested", None)
    assert len(config.decode.widths) == levels - 1
    assert config.decode.gamma == max(1, levels - 1)


def test_a_small_catalog_has_short_lists():
    config = load(own.get_config("3,small,6"), ExperimentConfig)
    assert (config.evaluate.tune, config.evaluate.beams) == ((6, 5), (6, 5, 1))
    assert (config.teacher.beams, config.align.top_k) == (6, 6)
    assert load(own.get_config("3,small,20"), ExperimentConfig) == load(own.get_config("3,small"), ExperimentConfig)
