"""A run that begins with Hugging Face directories: an adapter of the target, the whole of the draft."""

import dataclasses

import jax
import numpy as np
import pytest

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.users import held_out_users
from atspeed_jax.export.hugging_face import export_adapter, export_hf
from atspeed_jax.items.catalog import PAD
from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.peft_files import load_adapter
from atspeed_jax.models.weights import load_weights
from atspeed_jax.runs.experiment import PretrainedConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.serving.lists import differing
from atspeed_jax.training.directory import TrainingDirectoryError
from bases import BASE, BOS, write_base
from both_ways import decoded_both_ways

LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.1, targets=("q_proj", "v_proj"))
SMALL_DRAFT = dataclasses.replace(BASE, hidden_size=8, tied_embeddings=True, model_type="qwen3")


@pytest.fixture(scope="module")
def trained(small_config, tmp_path_factory):
    """(config, workdir, run with a trained pair, base of the target)."""
    place = tmp_path_factory.mktemp("pretrained")
    base = write_base(place / "target")
    write_base(place / "draft", SMALL_DRAFT, seed=1)
    config = dataclasses.replace(
        small_config,
        target=PretrainedConfig(str(place / "target"), LORA),
        draft=PretrainedConfig(str(place / "draft"), None),
    )
    run = Run(config, place / "run", None)
    for stage in ("data", "target", "teacher", "draft"):
        run.make(stage)
    return config, place, run, base


def test_prompts_are_tokens_behind_the_vocabulary(trained):
    _, _, run, _ = trained
    catalog = run.dataset.catalog
    assert (catalog.bos, catalog.first_code) == (BOS, BASE.vocab_size)
    batches = held_out_users(run.dataset, "test").batches(run.dataset, BatchShape(4, run.config.evaluate.buckets, 2))
    for batch in batches:
        real = batch["tokens"][batch["valid"]]
        assert set(real.tolist()) <= {BOS, *range(catalog.first_code, catalog.vocab_size)}
        assert PAD not in real


def test_only_adapter_and_item_rows_have_changed(trained):
    _, _, run, base = trained
    params = run.target_params
    np.testing.assert_array_equal(params["embedding"][:6], base["embedding"])
    np.testing.assert_array_equal(params["head"]["kernel"][:, :6], base["head"]["kernel"])
    attention = params["layers"]["attention"]
    changed = {
        name: not np.array_equal(attention[name]["kernel"], base["layers"]["attention"][name]["kernel"])
        for name in attention
    }
    assert changed == {"query": True, "value": True, "key": False, "output": False}
    np.testing.assert_array_equal(params["layers"]["mlp"]["up"]["kernel"], base["layers"]["mlp"]["up"]["kernel"])
    start = run.assets.target.initialization
    first = start.full_params(start.init(run_key(run), start.frozen))
    assert np.abs(np.asarray(params["embedding"][6:] - first["embedding"][6:])).min(1).max() > 0  # all rows are trained


def run_key(run):
    return jax.random.split(jax.random.key(run.config.train_target.seed))[0]


def test_speculation_gives_the_lists_of_plain_beam_search(trained):
    _, _, run, _ = trained
    alone, ours = decoded_both_ways(run)
    assert not differing(ours, alone).any()
    assert ours.calls.mean() < 3


def test_another_process_reads_it_and_another_base_is_refused(trained):
    config, place, run, _ = trained
    again = Run(config, place / "run", None)
    np.testing.assert_array_equal(again.target_params["embedding"], run.target_params["embedding"])
    other = place / "other"
    write_base(other, seed=7)
    changed = dataclasses.replace(config, target=PretrainedConfig(str(other), LORA))
    with pytest.raises(TrainingDirectoryError, match="fingerprint"):
        Run(changed, place / "run", None).target()


def test_models_of_two_vocabularies_are_refused(trained):
    config, place, _, _ = trained
    write_base(place / "larger", dataclasses.replace(BASE, vocab_size=9), words=())
    changed = dataclasses.replace(config, draft=PretrainedConfig(str(place / "larger"), None))
    with pytest.raises(ValueError, match=r"must share one vocabulary.*6 tokens.*9 tokens"):
        Run(changed, place / "run", None).dataset  # noqa: B018


def test_the_result_goes_back_to_hugging_face(trained, tmp_path):
    run = trained[2]
    catalog = run.dataset.catalog
    how = {"history": 4, "dtype": "float32", "base": run.base_of("target")}
    export_hf(tmp_path / "out", run.target_model, run.target_params, catalog, **how)
    sizes = read_hf_config(tmp_path / "out")
    assert sizes.vocab_size == catalog.vocab_size
    np.testing.assert_array_equal(load_weights(tmp_path / "out", sizes)["embedding"], run.target_params["embedding"])
    export_adapter(tmp_path / "adapter", run.pretrained["target"], run.trained("target"), catalog)
    lora, adapter = load_adapter(tmp_path / "adapter", BASE, run.pretrained["target"].load())
    assert lora == LORA
    jax.tree.map(np.testing.assert_array_equal, adapter, run.trained("target"))


def test_an_adapter_of_the_draft_is_refused(trained):
    config, _, _, _ = trained
    with pytest.raises(ValueError, match=r"draft\.lora"):
        dataclasses.replace(config, draft=config.target)
