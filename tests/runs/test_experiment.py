"""The experiment's dataclasses: the configs that come along, epochs turned into steps, what is refused at the door."""

import dataclasses
import runpy
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

import small
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import DataConfig, ExperimentConfig, TrainConfig
from config_classes import config_classes
from launch.config import load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAIN = TrainConfig(
    epochs=2.5,
    batch_size=8,
    buckets=(4,),
    learning_rate=1e-3,
    warmup_steps=20,
    weight_decay=0.1,
    clip_norm=1.0,
    b1=0.9,
    b2=0.98,
    average=0.5,
    shuffle=0.25,
    evaluations=4,
    patience=3,
    checkpoint_every=50,
    log_every=7,
    valid_users=10,
    seed=5,
)


def from_command_line(monkeypatch, file: Path, *overrides: str) -> ExperimentConfig:
    """The config as a main gets it."""
    arguments = ["main", f"--config={file}", *overrides]
    monkeypatch.setattr(sys, "argv", arguments)  # where ml_collections looks for the overrides
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    values(arguments)
    return load(config.value, ExperimentConfig)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.py")))
def test_every_config_loads(name):
    config = load(runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](), ExperimentConfig)
    assert config.name == name
    assert hash(config) == hash(dataclasses.replace(config))
    assert config.evaluate.users is None
    assert config.evaluate.beams[-1] == 1
    if name == "quickstart":  # every K costs it a minute, so it stops at 5
        assert set(config.evaluate.beams) == set(config.evaluate.tune) == {5, 1}
    else:
        assert {5, 20, config.teacher.beams} <= set(config.evaluate.beams)


@pytest.mark.parametrize("name", ["tiny", "lcrec_small"])
def test_a_config_file_names_every_field_so_that_the_command_line_can_set_it(name):
    """Their defaults lie in the dataclasses, but an override changes only what the file names."""
    raw = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]().to_dict()
    config = load(raw, ExperimentConfig)
    missing = {path for path in named(dataclasses.asdict(config)) if path not in named(raw)}
    whole = {"target.rope_scaling", "draft.rope_scaling"}  # None, or a dict that a file gives
    assert missing == whole | {path for path in missing if path.startswith("data.prompt")}  # of pretrained models


def named(fields: dict, path: str = "") -> set[str]:
    inner = [named(value, f"{path}{name}.") for name, value in fields.items() if isinstance(value, dict)]
    return {f"{path}{name}" for name in fields}.union(*inner)


@pytest.mark.parametrize("kind", config_classes())
def test_no_field_has_the_name_of_a_method_of_configdict(kind):
    """ml_collections finds the method in its place, so the command line could not set such a field."""
    assert not {field.name for field in dataclasses.fields(kind)} & set(dir(ConfigDict))


def test_prompts_of_the_7b_pair():
    make = runpy.run_path(str(CONFIGS / "beauty_llama7b.py"))["get_config"]
    assert load(make(), ExperimentConfig).data.prompt == PromptConfig("instruction")
    assert load(make("item"), ExperimentConfig).data == DataConfig("atspeed", 20, None)
    with pytest.raises(ValueError, match="prompt 'words': expected 'instruction' or 'item'"):
        make("words")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_a_prompt_on_the_command_line(monkeypatch):
    file, text = CONFIGS / "beauty_llama7b.py", "--config.data.prompt.template=Then {items}?"
    assert from_command_line(monkeypatch, file, text).data.prompt == PromptConfig("instruction", "Then {items}?")
    fields = ("before=<", "after=>", 'chat_options={"a": 1}', "kind=chat", "system=Hi", "date=2026-01-31")
    flags = [f"--config.data.prompt.{field}" for field in fields]
    chat = PromptConfig("chat", before="<", after=">", system="Hi", chat_options='{"a": 1}', date="2026-01-31")
    assert from_command_line(monkeypatch, file, *flags).data.prompt == chat
    with pytest.raises(ConfigError, match=r"config\.data\.prompt: template='Then' has {items} 0 times: put it once"):
        from_command_line(monkeypatch, file, "--config.data.prompt.template=Then")


def test_the_draft_of_the_fewest_calls_as_a_config():
    """The one of configs/sweeps/drafts.py that is called layers_2."""
    get_config = runpy.run_path(str(CONFIGS / "lcrec_small.py"))["get_config"]
    config = load(get_config("layers"), ExperimentConfig)
    assert isinstance(config.draft, TargetLayersConfig)
    assert config.draft.numbers(config.target.llama(1)) == (0, 3)
    assert (config.train_draft, config.decode.budget) == (None, 128)
    assert config.target == load(get_config(), ExperimentConfig).target
    with pytest.raises(ValueError, match="draft 'layer': expected one of new, layers"):
        get_config("layer")


def test_the_documented_defaults_of_lcrec_small():
    config = load(runpy.run_path(str(CONFIGS / "lcrec_small.py"))["get_config"](), ExperimentConfig)
    assert config.data == DataConfig("atspeed", 20, None)
    assert config.decode.widths == ("all", 64, 96)
    assert config.evaluate.grid_widths == ((40, 40, 40), ("all", 96, 128))
    assert config.evaluate.grid_beams == (3, 10)
    assert config.evaluate.grid_users == 300
    assert config.train_align.valid_users == 500


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("evaluate.users=5", "evaluate.users", 5),
        ("decode.widths=('all',9)", "decode.widths", ("all", 9)),
        ("evaluate.grid_widths=(('all',9),(4,4))", "evaluate.grid_widths", (("all", 9), (4, 4))),
        ("evaluate.drafters=()", "evaluate.drafters", ()),
        ("evaluate.drafters=('popularity',)", "evaluate.drafters", ("popularity",)),
        ("train_target.epochs=3", "train_target.epochs", 3.0),
        ("target.hidden_size=24", "target.hidden_size", 24),
    ],
)
def test_every_kind_of_field_can_be_set_on_the_command_line(monkeypatch, small_config, override, path, value):
    file = CONFIGS.parent / "tests" / "helpers" / "small.py"
    changed = from_command_line(monkeypatch, file, f"--config.{override}")
    assert changed == small.changed(small_config, path, value) != small_config


def test_fit_counts_in_steps():
    fit = TRAIN.fit(100)
    assert (fit.steps, fit.optim.steps, fit.eval_every, fit.optim.warmup_steps) == (250, 250, 63, 20)
    assert (fit.patience, fit.checkpoint_every, fit.log_every, fit.seed) == (3, 50, 7, 5)
    optim = fit.optim
    assert (optim.learning_rate, optim.weight_decay, optim.clip_norm) == (1e-3, 0.1, 1.0)
    assert (optim.b1, optim.b2, optim.average) == (0.9, 0.98, 0.5)


@pytest.mark.parametrize("per_epoch", [1, 2, 3, 7, 8, 10, 100, 1000])
def test_fit_evaluates_as_often_as_asked(per_epoch):
    fit = TRAIN.fit(per_epoch)
    evaluations = {step for step in range(1, fit.steps + 1) if step % fit.eval_every == 0 or step == fit.steps}
    assert fit.steps == round(2.5 * per_epoch)
    assert min(fit.steps, 2) <= len(evaluations) <= 4


@pytest.mark.parametrize(("per_epoch", "steps", "warmup"), [(8, 20, 2), (9, 22, 20), (1, 2, 0)])
def test_a_run_shorter_than_its_warm_up_warms_up_for_a_tenth(per_epoch, steps, warmup):
    assert (TRAIN.fit(per_epoch).steps, TRAIN.fit(per_epoch).optim.warmup_steps) == (steps, warmup)


def test_a_part_of_an_epoch_is_at_least_one_step():
    assert dataclasses.replace(TRAIN, epochs=0.01).fit(10).steps == 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.synthetic", None, "config.data: source is 'synthetic' but synthetic is None"),
        ("data.synthetic.users", 0, "config.data.synthetic.users=0: expected a whole number, at least 1 and at most"),
        ("data.synthetic.zipf", 1e30, "config.data.synthetic.zipf=1e+30: expected a number, at least 0 and at most 10"),
        ("target.heads", 3, "config.target: heads=3 is not a multiple of kv_heads=2"),
        ("target.rope_theta", -1.0, "config.target.rope_theta=-1.0: expected a number, at least 1 and at most 1e+10"),
        ("draft.head_dim", 7, "config.draft: head_dim=7 is odd"),
        ("train_target.seed", -1, "config.train_target.seed=-1: expected a whole number, at least 0 and at most 21474"),
        ("train_target.learning_rate", float("nan"), "config.train_target.learning_rate=nan: expected a number, more"),
        (
            "train_target.clip_norm",
            float("inf"),
            "config.train_target.clip_norm=inf: expected a number, more than 0 an",
        ),
        ("train_target.accumulate", 3, "config.train_target: batch_size=64 is not a multiple of accumulate=3"),
        ("train_align.buckets", (4, 2), "config.train_align.buckets=(4, 2): expected one or more increasing numbers"),
        ("evaluate.buckets", (), "config.evaluate.buckets=(): expected one or more increasing numbers"),
        ("teacher.beams", 0, "config.teacher.beams=0: expected a whole number, at least 1 and at most 10000"),
        ("teacher.batch_size", 0, "config.teacher.batch_size=0: expected a whole number, at least 1 and at most 65536"),
        ("decode.gamma", 0, "config.decode.gamma=0: expected a whole number, at least 1 and at most 8"),
        ("align.temperature", 2.0, "config: align.temperature=2.0 with teacher.log_probs=True: stored log-prob"),
        (
            "align.temperature",
            0.001,
            "config.align.temperature=0.001: expected a number, at least 0.1 and at most 1000",
        ),
        (
            "evaluate.list_size",
            5,
            "config.evaluate.list_size=5: expected a whole number, at least 10 and at most 10000;",
        ),
        ("evaluate.beams", (), "config.evaluate: beams=(), grid_beams=(): expected one or more K"),
        ("evaluate.beams", (20, 0), "config.evaluate.beams[1]=0: expected a whole number, at least 1"),
        ("evaluate.grid_beams", (20,), "config.evaluate: beams=(20, 5, 1), grid_beams=(20,): expected one or more K"),
        ("evaluate.drafters", ("none",), "config.evaluate: drafters holds 'none', which is plain beam search"),
        ("evaluate.drafter", ("draft",), "config.evaluate.drafter is unknown; did you mean config.evaluate.drafters?"),
        ("evaluate.drafters", ("oracle",), "config.evaluate.drafters[0] is 'oracle' (str), expected one of"),
        ("decode.widths", ("most", 3), "config.decode.widths[0] is 'most' (str), expected int or one of 'all'"),
    ],
)
def test_what_cannot_work_is_refused_as_the_config_is_read(path, value, message):
    raw = runpy.run_path(str(CONFIGS / "tiny.py"))["get_config"]().to_dict()
    *parents, name = path.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(ConfigError) as error:
        load(raw, ExperimentConfig)
    assert str(error.value).startswith(message)


def test_atspeed_s_looks_at_no_more_than_the_teachers_beams():
    raw = runpy.run_path(str(CONFIGS / "atspeed_s.py"))["get_config"]().to_dict()
    raw["teacher"]["beams"] = raw["align"]["top_k"] - 1
    with pytest.raises(
        ConfigError, match=r"top_k=20 with teacher.beams=19: .*raise teacher.beams or lower align.top_k"
    ):
        load(raw, ExperimentConfig)
    raw["align"]["objective"] = "tree_kd"  # which has no top_k
    load(raw, ExperimentConfig)
