"""A sweep's config as experiments."""

import pytest

import small_sweep
from atspeed_jax.decoding.config import resolve_widths
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import ModelConfig
from atspeed_jax.sweeps.trials import chosen


def test_every_run_with_every_seed():
    config = small_sweep.get_config()
    config.seeds = (3, 4)
    sweep, made = small_sweep.made(config)
    assert [trial.name for trial in made] == ["kd_3", "words_3", "kd_4", "words_4"]
    assert [trial.config.align.objective for trial in made] == ["tree_kd", "word_kd"] * 2
    for trial in made:
        assert trial.config.train_draft.seed == trial.config.train_align.seed == trial.seed
        assert trial.config.train_target.seed == 0
        assert trial.config.train_align.epochs == 0.5
    config.runs.words = {"seeds": (5, 3), "align": {"objective": "word_kd"}}
    assert [trial.name for trial in small_sweep.made(config)[1]] == ["kd_3", "words_3", "kd_4", "words_5"]
    assert sweep.measure[0].modes == ("strict",)
    assert sweep.measure[0].widths == (("all", 10),)


def test_objectives_of_the_paper_side_by_side():
    from configs.sweeps import objectives

    sweep, made = small_sweep.made(objectives.get_config())
    assert len(made) == 3 * 5 + 2 * 4
    assert len(sweep.measure) == 3
    for name in ("atspeed_s", "atspeed_r", "tree_kd", "coverage", "sft"):
        assert [trial.seed for trial in made if trial.run == name] == [0, 1, 2]
    short, fewer = small_sweep.made(objectives.get_config("short"))
    assert len(fewer) == 9
    assert len(short.measure) == 1
    assert short.measure[0].beams == (20,)
    # On histories an epoch has half the rows.
    epochs = {trial.run: trial.config.train_align.epochs for trial in made}
    assert epochs["sft"] == epochs["word_kd"] == epochs["tvd_kd"] == 2 * epochs["coverage"]


def test_drafts_of_several_sizes_and_budgets_share_a_target():
    from configs.sweeps import drafts

    sweep, made = small_sweep.made(drafts.get_config())
    by_run = {trial.run: trial.config for trial in made}
    assert len({config.target for config in by_run.values()}) == 1
    assert {run: config.decode.budget for run, config in by_run.items()} == {
        "widths": None, "nodes_128": 128, "nodes_192": 192, "params_500k": 128, "params_1m": 128, "params_2m": 128,
        "layers_2": 128, "layers_3": 128,
    }  # fmt: skip
    assert by_run["layers_2"].draft == TargetLayersConfig((0, 3))
    assert by_run["nodes_128"].draft == by_run["widths"].draft
    nodes = sweep.measure[0].budgets
    assert nodes == (64, 96, 128, 192, 416)
    prefixes_of_beauty = (91, 6539, 11172, 12023)
    assert sum(resolve_widths(sweep.measure[0].widths[0], prefixes_of_beauty, 20)) >= max(nodes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": {}}, "config.runs: expected a dict"),
        ({"runs": {"a": {"align": {"objektive": "sft"}}}, "reference": "a"}, "runs.a: align.objektive is unknown"),
        (
            {"runs": {"a": {"align": {"objective": "best"}}}, "reference": "a"},
            "runs.a: config.align.objective is 'best'",
        ),
        ({"runs": {"a": {"align": {"alpha": "high"}}}, "reference": "a"}, "config.runs.a: .*alpha"),
        ({"common": {"speed": 2}}, "config.runs.kd: speed is unknown"),
        ({"seeds": ()}, "config.seeds and config.measure: expected at least one"),
        ({"runs": {"a": {"drafts=": {}}}, "reference": "a"}, "runs.a: drafts is unknown; expected one of"),
        ({"runs": {"a": 3}, "reference": "a"}, "config.runs.a is 3: expected a dict of the fields that it changes"),
        ({"common": {"name": {"first": 1}}}, "config.runs.kd: name is 'small' in the base, which has no fields"),
        ({"reference": "sft"}, "config.reference='sft': expected one of the runs, kd, words"),
        ({"base": "configs/none.py"}, "config.base='configs/none.py': there is no such config file"),
        ({"sedes": (1,)}, "config.sedes is unknown; did you mean config.seed"),
    ],
)
def test_sweeps_that_cannot_be(change, message):
    config = small_sweep.get_config()
    with config.ignore_type(), config.unlocked():
        for name, value in change.items():
            config[name] = value
    with pytest.raises(ConfigError, match=message):
        small_sweep.made(config)


def test_a_section_is_replaced_by_another_one():
    """A draft of the target's layers has none of the fields of a draft from scratch."""
    config = small_sweep.get_config()
    with config.unlocked():
        config.runs.kd = {"draft=": {"target_layers": (0,)}, "train_draft": None, "align": {"objective": "tree_kd"}}
    made = {trial.run: trial.config for trial in small_sweep.made(config)[1]}
    assert made["kd"].draft == TargetLayersConfig((0,))
    assert made["kd"].train_draft is None
    assert made["words"].draft == ModelConfig(**vars(made["words"].draft))


def test_some_of_a_sweep():
    _, made = small_sweep.made()
    assert [trial.name for trial in chosen(made, ["words_0", "kd_0"])] == ["kd_0", "words_0"]
    assert chosen(made, []) == []
    with pytest.raises(ConfigError, match="no experiment is called kd_1; expected some of kd_0, words_0"):
        chosen(made, ["kd_0", "kd_1"])
