"""The paper's sizes, LLaMA-7B and LLaMA-68M, traced and lowered here without a weight being allocated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.config import SearchConfig, prefixes_by_norm
from atspeed_jax.decoding.draft import ModelDrafter
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.lora import init_adapter
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.training.next_item import training_loss
from configs import beauty_llama7b
from launch.config import load

TARGET = LlamaConfig(32_000, 4096, 11_008, 32, 32, 32, 128, 1e4, 1e-6, False, 0.0, "bfloat16", True)
DRAFT = LlamaConfig(32_000, 768, 3072, 2, 12, 12, 64, 1e4, 1e-6, False, 0.0, "bfloat16", True)
CONFIG = load(beauty_llama7b.get_config(), ExperimentConfig)
CODES = np.random.default_rng(0).integers(0, 256, (3000, 4))
PROMPT = 196  # about what the instruction with 20 items takes
CATALOG = Catalog(CODES, (256,) * 4).behind(32_000, 1)


def in_dtype(shapes, dtype):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)


def test_a_step_of_the_target_with_its_adapter():
    lora, train = CONFIG.target.lora, CONFIG.train_target
    base = in_dtype(param_shapes(TARGET), jnp.bfloat16)
    assert 6.6e9 < sum(leaf.size for leaf in jax.tree.leaves(base)) < 6.8e9
    make = functools.partial(init_adapter, TARGET, lora, items=CATALOG.code_count)
    adapter = jax.eval_shape(lambda base, key: make(base, key=key), base, jax.random.key(0))
    trained = sum(leaf.size for leaf in jax.tree.leaves(adapter))
    assert trained == 32 * 2 * 8 * (4096 + 4096) + 2 * 1024 * 4096  # q and v, and the code rows of embedding and head
    rows = (train.batch_size, PROMPT + 4)
    kinds = {"tokens": jnp.int32, "valid": bool, "predict": bool}
    batch = {name: jax.ShapeDtypeStruct(rows, kind) for name, kind in kinds.items()}
    model = dataclasses.replace(TARGET, adapter_dropout=lora.dropout)
    step = jax.jit(jax.value_and_grad(training_loss(model, 4, 0.0, lora), has_aux=True))
    lowered = step.lower(adapter, batch, jax.random.key(0), base)
    (loss, _), grads = lowered.out_info
    assert loss.shape == ()
    assert jax.tree.structure(grads) == jax.tree.structure(adapter)


def test_decoding_with_the_68m_draft():
    sizes = {"vocab_size": CATALOG.vocab_size}
    target, draft = (dataclasses.replace(model, **sizes) for model in (TARGET, DRAFT))
    params, draft_params = (in_dtype(param_shapes(model), jnp.bfloat16) for model in (target, draft))
    prefixes = prefixes_by_norm(CATALOG.id_tokens)["vocab"]
    config = SearchConfig(("all", 64, 96), 3, "vocab", beams=20).resolve(prefixes)
    prompt = Prompt(jax.ShapeDtypeStruct((8, PROMPT), jnp.int32), jax.ShapeDtypeStruct((8, PROMPT), bool))
    models = LlamaStep(target), params, ModelDrafter(LlamaStep(draft)), draft_params
    lowered = speculative_beam_search.lower(*models, trie=build_trie(CATALOG.id_tokens), prompt=prompt, config=config)
    assert lowered.out_info.ids.shape == (8, 20)
