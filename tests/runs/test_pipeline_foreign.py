"""A run whose target is a Hugging Face model that knows the codes: taken as it is, or with an adapter."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from atspeed_jax.export.hugging_face import export_adapter, export_hf
from atspeed_jax.items.tokenizer import TokenizerError
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import PretrainedConfig
from atspeed_jax.models.target_layers import TargetLayersConfig, take_layers
from atspeed_jax.runs.open_run import open_run
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.record import record_config
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.recommender import Recommender
from both_ways import decoded_both_ways
from known_codes import texts_of, write_known

HISTORIES = [[], [3], [5, 1, 7, 7, 2], [0, 2]]


@pytest.fixture(scope="module")
def place(small_config, data_only, tmp_path_factory):
    """(config, directory with the target, the item index and a run whose data and target are there)."""
    directory = tmp_path_factory.mktemp("foreign")
    catalog = Run(small_config, data_only, None).dataset.catalog
    index = {n: [f"<{level}_{n}>" for level, n in zip("abc", row, strict=True)] for n, row in enumerate(catalog.codes)}
    (directory / "x.index.json").write_text(json.dumps(index))
    write_known(directory / "target", texts=texts_of(catalog), layers=2)
    target = PretrainedConfig(str(directory / "target"), None)
    config = dataclasses.replace(small_config, target=target, train_target=None)
    record_config(directory / "run", config)
    shutil.copytree(data_only / "data", directory / "run" / "data")
    Run(config, directory / "run", None).target()
    return config, directory


def test_a_target_as_it_is(place):
    config, directory = place
    run = open_run(directory / "run")
    again = Run(config, directory / "run", None)
    again.target()  # is there already
    assert json.loads((directory / "run" / "target" / "metadata.json").read_text())["trained"] is False
    found = run.recommender(k=5, drafter="none")(HISTORIES)
    served = Recommender.from_hugging_face(directory / "target", directory / "x.index.json", k=5, history=4)
    ids = run.catalog.id_of_item
    for ours, theirs in zip(found.items, served(HISTORIES).items, strict=True):
        assert ids[ours].tolist() == ids[theirs].tolist()  # items of one id are listed by popularity in the run


def test_it_goes_back_as_it_came(place, tmp_path):
    """Names, dtype and every row, those of padding too."""
    config, directory = place
    run = Run(config, directory / "run", None)
    how = {"history": 4, "dtype": "float32", "base": run.base_of("target")}
    export_hf(tmp_path / "out", run.target_model, run.target_params, run.catalog, **how)
    stored, back = (load_file(one / "model.safetensors") for one in (directory / "target", tmp_path / "out"))
    assert stored.keys() == back.keys()
    assert all(stored[name].tobytes() == back[name].tobytes() for name in stored)
    tokenizers = [json.loads((one / "tokenizer.json").read_text()) for one in (directory / "target", tmp_path / "out")]
    assert tokenizers[0] == tokenizers[1]


def test_codes_that_the_target_does_not_know(place, small_config, tmp_path):
    config, directory = place
    write_known(tmp_path / "target", texts=())
    other = dataclasses.replace(config, target=PretrainedConfig(str(tmp_path / "target"), None))
    with pytest.raises(TokenizerError, match="none of the index's codes as tokens"):
        Run(other, directory / "run", None).dataset  # noqa: B018
    with pytest.raises(ValueError, match="train_target=None: a target that is not trained is a Hugging Face directory"):
        dataclasses.replace(small_config, train_target=None)


def aligned(config, directory, workdir) -> Run:
    """A run on the data of `place`, up to its draft."""
    shutil.copytree(directory / "run" / "data", workdir / "data")
    run = Run(config, workdir, None)
    for stage in ("target", "teacher", "draft"):
        run.make(stage)
    return run


def check_served(run, directory, exported):
    """The exported draft beside the target's directory gives the lists of plain beam search."""
    how = {"history": 4, "dtype": "float32", "base": run.base_of("draft")}
    export_hf(exported, run.draft_model, run.draft_params, run.catalog, **how)
    served = directory / "target", directory / "x.index.json"
    draft = Recommender.from_hugging_face(*served, k=5, history=4, draft=exported)
    plain = Recommender.from_hugging_face(*served, k=5, history=4)
    assert draft(HISTORIES).items == plain(HISTORIES).items


@pytest.mark.slow
def test_a_draft_for_it(place, tmp_path):
    """Trained and aligned, with the lists of plain beam search and fewer calls."""
    config, directory = place
    shutil.copytree(directory / "run", tmp_path / "run")
    run = Run(config, tmp_path / "run", None)
    for stage in ("teacher", "draft"):
        run.make(stage)
    alone, ours = decoded_both_ways(run)
    assert not differing(ours, alone).any()
    assert ours.calls.mean() < 3
    check_served(run, directory, tmp_path / "draft")


@pytest.mark.slow
def test_a_draft_of_its_own_layers(place, tmp_path):
    """With all rows of the vocabulary. The draft is exported and served beside the directory of the target."""
    config, directory = place
    config = dataclasses.replace(config, draft=TargetLayersConfig((-1,)))
    run = aligned(config, directory, tmp_path / "run")
    assert run.draft_params["embedding"].shape == run.target_params["embedding"].shape
    alone, ours = decoded_both_ways(run)
    assert not differing(ours, alone).any()
    check_served(run, directory, tmp_path / "draft")
    beyond = Run(dataclasses.replace(config, draft=TargetLayersConfig((0, 2))), tmp_path / "run", None)
    with pytest.raises(ValueError, match="it has 2, numbered from 0 to 1"):
        beyond.dataset  # noqa: B018


@pytest.mark.slow
def test_an_adapter_of_known_codes_has_no_rows_of_tokens(place, small_config, tmp_path):
    config, directory = place
    lora = LoraConfig(rank=2, alpha=4.0, dropout=0.1, targets=("q_proj", "v_proj"))
    target = PretrainedConfig(str(directory / "target"), lora)
    config = dataclasses.replace(config, target=target, train_target=small_config.train_target)
    shutil.copytree(directory / "run" / "data", tmp_path / "run" / "data")
    run = Run(config, tmp_path / "run", None)
    run.target()
    assert set(run.trained("target")) == {"layers"}
    export_adapter(tmp_path / "adapter", run.pretrained["target"], run.trained("target"), run.catalog)
    assert not [name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors") if "embed" in name]
    how = {"history": 4, "dtype": "float32", "base": run.base_of("target")}
    export_hf(tmp_path / "out", run.target_model, run.target_params, run.catalog, **how)
    stored, back = (load_file(one / "model.safetensors") for one in (directory / "target", tmp_path / "out"))
    same = {name: np.array_equal(stored[name], back[name]) for name in stored}
    assert {name.split(".")[-2] for name in same if not same[name]} == {"q_proj", "v_proj"}
    assert jax.tree.leaves(run.target_params)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_draft_of_the_layers_of_a_target_with_an_adapter(place, small_config, tmp_path, dtype):
    """It begins with the layers as they are served, the adapter merged."""
    config, directory = place
    lora = LoraConfig(rank=2, alpha=4.0, dropout=0.1, targets=("q_proj", "v_proj"))
    target = PretrainedConfig(str(directory / "target"), lora, dtype=dtype)
    config = dataclasses.replace(config, target=target, train_target=small_config.train_target)
    config = dataclasses.replace(config, draft=TargetLayersConfig((0,)), train_draft=None)
    run = aligned(config, directory, tmp_path / "run")
    begun = take_layers(run.target_params, (0,))
    jax.tree.map(np.testing.assert_array_equal, dict(run.draft_sft()), begun)
    alone, ours = decoded_both_ways(run)
    assert ours.calls.mean() < alone.calls.mean()
    if dtype == "float32":  # in bfloat16 scores that are nearly equal may change places
        assert not differing(ours, alone).any()
