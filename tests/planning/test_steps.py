import dataclasses

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import PretrainedConfig
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.models.weight_files import WeightsError
from atspeed_jax.planning.plan import bytes_on_device
from atspeed_jax.planning.steps import Steps, describe_models
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.training.sharding import shard_batch
from bases import BOS, write_base
from configs import beauty_llama7b
from devices import whole_mesh
from launch.config import load
from small import changed

SEVEN_B = load(beauty_llama7b.get_config(), ExperimentConfig)
CATALOG = Catalog.random(40, (4,) * 3)
TARGET = 14 * 16 + 2 * 16 * 8 * 3 + 3 * 16 * 16 + 3 * 16  # parameters: embedding, attention, MLP, norms
DRAFT = 14 * 8 + 8 * 8 * 6 + 3 * 8 * 16 + 3 * 8


def steps_of(config, catalog=CATALOG):
    return Steps(config, catalog, describe_models(config), whole_mesh())


def test_what_lies_on_the_devices(small_config):
    made = steps_of(small_config)
    train, align, decode = (step.on_device for step in (made.train_target(), made.align_draft(), made.decode()))
    assert bytes_on_device(train["parameters"]) == 4 * TARGET
    assert bytes_on_device(train["optimizer"]) == 4 * 3 * TARGET + 8  # two moments, what is averaged, two counters
    assert 0 < bytes_on_device(align["parameters"]) - 4 * (TARGET + 2 * DRAFT) < 4000  # the draft twice, and the tree
    assert bytes_on_device(decode["parameters"]) == 4 * (TARGET + DRAFT)
    assert bytes_on_device(decode["optimizer"]) == 0
    slots = 1 + 3 * 4 + 4 + 10 + 6  # of the prompt, and of both levels with widths ("all", 10), at least 10 beams
    assert bytes_on_device(made.decode().cache) == slots * 2 * 8 * 4 + slots * 2 * 8 * 4


def test_a_draft_of_the_targets_layers(small_config):
    made = steps_of(dataclasses.replace(small_config, draft=TargetLayersConfig((0,))))
    assert made.models["draft"].config == made.models["target"].config
    assert bytes_on_device(made.decode().on_device["parameters"]) == 4 * 2 * TARGET


@pytest.mark.slow
def test_layers_side_by_side_lie_beside_their_stacks(small_config):
    decode = steps_of(changed(small_config, "decode.unroll", True)).decode()
    stacked = steps_of(small_config).decode()
    assert "layers_0" in decode.on_device["parameters"][0]
    assert bytes_on_device(decode.on_device["parameters"]) == 4 * (TARGET + DRAFT)
    more = bytes_on_device(decode.on_device["other"]) - bytes_on_device(stacked.on_device["other"])
    assert more == 4 * (TARGET + DRAFT)
    assert bytes_on_device(decode.cache) == bytes_on_device(stacked.cache)
    names = [str(one.in_avals) for one in (decode.lower(), stacked.lower())]
    assert names[0] != names[1]


@pytest.mark.parametrize(("norm", "computed"), [("vocab", 112), ("trie", 12)])
def test_a_decode_computes_the_logits_that_its_norm_needs(small_config, norm, computed):
    """Twelve codes behind a hundred words."""
    decode = steps_of(changed(small_config, "decode.score_norm", norm), CATALOG.behind(100, BOS)).decode()
    assert {one.model.vocab_size for one in decode.passes} == {computed}


def test_the_batches_are_those_of_a_run(small_run):
    run, made = small_run.run, steps_of(small_run.run.config, small_run.run.dataset.catalog)
    lowered = made.align_draft().lower()
    batch = shard_batch(run.alignment_batches((run.config.data.history,))[0], run.mesh)
    shapes = lowered.in_avals[0][1]
    assert {name: (x.shape, x.dtype) for name, x in batch.items() if name in shapes} == {
        name: (x.shape, x.dtype) for name, x in shapes.items()
    }


@pytest.mark.parametrize("lora", [None, LoraConfig(2, 4.0, 0.0, ("q_proj",))], ids=["whole", "adapter"])
def test_a_base_lies_beside_what_is_served(small_config, tmp_path, lora):
    write_base(tmp_path / "base")
    config = changed(small_config, "target", PretrainedConfig(str(tmp_path / "base"), lora, dtype="bfloat16"))
    made = steps_of(config, CATALOG.behind(6, BOS))
    target = made.models["target"]
    base = sum(leaf.size for leaf in jax.tree.leaves(target.start.frozen))
    if lora is None:
        assert bytes_on_device(target.held) == 4 * base
        assert {leaf.dtype for leaf in jax.tree.leaves(target.served)} == {jnp.dtype("float32")}
    else:
        assert bytes_on_device(target.held) == 2 * (16 * 16 + 2 * 6 * 16)  # query, embedding and head
        assert bytes_on_device(target.served) == 2 * (base + 2 * 12 * 16)
    assert made.train_target().passes[0].trains == ("all" if lora is None else "adapter")


def test_the_sizes_in_the_repository_are_those_of_the_papers_pair_and_no_run_begins_with_them(tmp_path):
    models = {name: one.model for name, one in describe_models(SEVEN_B).items()}
    assert dataclasses.astuple(models["target"])[:7] == (32_000, 4096, 11_008, 32, 32, 32, 128)
    assert dataclasses.astuple(models["draft"])[:7] == (32_000, 768, 3072, 2, 12, 12, 64)
    with pytest.raises(WeightsError, match=r"llama_7b has neither model\.safetensors"):
        Run(SEVEN_B, tmp_path, None).pretrained  # noqa: B018
