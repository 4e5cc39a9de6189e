"""A run whose draft begins as layers of its own target."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import small
from atspeed_jax import open_run
from atspeed_jax.models.target_layers import TargetLayersConfig, take_layers
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.record import record_config
from launch.config import load


@pytest.fixture(scope="module")
def config(small_config):
    """The draft is the only layer of the small target."""
    return dataclasses.replace(small_config, draft=TargetLayersConfig((0,)), train_draft=None)


@pytest.fixture(scope="module")
def run(config, small_run, tmp_path_factory):
    """Trained, on the target of the small run."""
    workdir = tmp_path_factory.mktemp("layers") / "run"
    record_config(workdir, config)
    for stage in ("data", "target", "teacher"):
        shutil.copytree(small_run.workdir / stage, workdir / stage)
    run = Run(config, workdir, None)
    run.draft()
    return run


def test_alignment_begins_with_the_layers_of_the_trained_target(run):
    begun = take_layers(run.target_params, (0,))
    jax.tree.map(np.testing.assert_array_equal, dict(run.draft_sft()), begun)
    assert jax.tree.structure(run.draft_params) == jax.tree.structure(run.target_params)
    assert not (run.workdir / "draft_sft").exists()


def test_next_item_training_begins_there_too(run, config, small_config, tmp_path):
    """It hardly moves the layers here."""
    train = dataclasses.replace(small_config.train_draft, learning_rate=1e-12, average=0.0, weight_decay=0.0)
    for stage in ("data", "target"):
        shutil.copytree(run.workdir / stage, tmp_path / "run" / stage)
    trained = Run(dataclasses.replace(config, train_draft=train), tmp_path / "run", None).draft_sft()
    begun = take_layers(run.target_params, (0,))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), dict(trained), begun)
    assert (tmp_path / "run" / "draft_sft").exists()


def test_only_such_a_draft_does_without_next_item_training(config, small_config):
    with pytest.raises(ValueError, match="train_draft=None: a draft that is not layers of its target is trained on"):
        dataclasses.replace(small_config, train_draft=None)
    with pytest.raises(ValueError, match=r"train_draft=None with align\.objective='sft', which reads histories"):
        small.changed(config, "align.objective", "sft")


def test_the_draft_was_aligned_behind_that(run):
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), dict(run.draft_params), dict(run.draft_sft()))
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_lists_are_those_of_plain_beam_search(run):
    opened, histories = open_run(run.workdir), [[1, 2], [3], [], [7, 8, 9]]
    drafted, plain = (opened.recommender(5, drafter=drafter)(histories) for drafter in ("draft", "none"))
    assert drafted.items == plain.items
    np.testing.assert_allclose(drafted.scores, plain.scores, atol=1e-5)


def test_the_record_says_which_layers(run):
    record = json.loads((run.workdir / "experiment.json").read_text())
    assert record["draft"] == {"target_layers": [0], "dropout": 0.0}
    assert load(record, ExperimentConfig).draft == TargetLayersConfig((0,))


def test_a_draft_of_another_target_is_another_draft(run, small_run, config):
    other = Run(small.changed(config, "train_target.epochs", 1.0), run.workdir, None)
    other.models.__dict__["target_params"] = jax.tree.map(lambda leaf: leaf + 1, dict(run.target_params))
    assert other.stage_fingerprint("draft_sft") != run.stage_fingerprint("draft_sft")
    assert run.stage_fingerprint("draft_sft") != small_run.run.stage_fingerprint("draft_sft")


def test_a_layer_that_the_target_does_not_have_is_refused_at_once(small_config):
    with pytest.raises(ValueError, match=r"draft.target_layers=\(0, 1\): expected different layers of the target in"):
        dataclasses.replace(small_config, draft=TargetLayersConfig((0, 1)))
    fields = small.get_config().to_dict() | {"draft": {"target_layers": (0, 1)}}
    with pytest.raises(ConfigError, match="it has 1, numbered from 0 to 0 or from -1 to -1"):
        load(fields, ExperimentConfig)
