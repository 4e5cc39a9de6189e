"""Adapters to and from PEFT itself; skipped where it is not installed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from atspeed_jax.models.hf_config import read_hf_config  # noqa: E402
from atspeed_jax.models.llama import forward  # noqa: E402
from atspeed_jax.models.lora import LoraConfig, init_adapter, scale_adapter  # noqa: E402
from atspeed_jax.models.peft_files import load_adapter, save_adapter  # noqa: E402
from atspeed_jax.models.weights import load_weights  # noqa: E402
from hf import SIZES, TOKENS, random_llama  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of torch, transformers and peft
]
LORA = LoraConfig(rank=3, alpha=6.0, dropout=0.05, targets=("q_proj", "v_proj", "down_proj"))
ITEMS = 7


KINDS = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "attention_bias": True, "tie_word_embeddings": True},
}


@pytest.fixture(params=KINDS)
def base(request, tmp_path):
    """(their model, our config, our parameters)."""
    model = random_llama(**KINDS[request.param])
    model.save_pretrained(tmp_path / "base")
    config = read_hf_config(tmp_path / "base")
    return model, config, load_weights(tmp_path / "base", config)


def their_logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(tokens).long()).logits.numpy()


def our_logits(config, params, adapter, lora, tokens):
    model = dataclasses.replace(config, adapter_dropout=lora.dropout)
    read = scale_adapter(adapter, lora, config.tied_embeddings)
    return forward(model, params, jnp.asarray(tokens), jnp.ones(tokens.shape, bool), adapter=read)


@pytest.mark.parametrize("items", [0, ITEMS])
def test_peft_loads_ours(base, tmp_path, items):
    model, config, params = base
    adapter = init_adapter(config, LORA, params, items, jax.random.key(0))
    adapter = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), adapter)
    save_adapter(tmp_path / "adapter", config, LORA, params, adapter, str(tmp_path / "base"))
    if items:
        model.resize_token_embeddings(SIZES["vocab_size"] + items, mean_resizing=False)
    tokens = np.where(TOKENS == 9, SIZES["vocab_size"] + items - 1, TOKENS).astype(np.int32) if items else TOKENS
    theirs = their_logits(peft.PeftModel.from_pretrained(model, tmp_path / "adapter"), tokens)
    assert theirs.shape[-1] == SIZES["vocab_size"] + items
    assert theirs.std() > 0.05
    np.testing.assert_allclose(our_logits(config, params, adapter, LORA, tokens), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("items", [0, ITEMS])
def test_we_load_pefts(base, tmp_path, items):
    model, config, params = base
    plain = their_logits(model, TOKENS)
    if items:
        model.resize_token_embeddings(SIZES["vocab_size"] + items)
    targets = ["v_proj", "gate_proj", "o_proj"]
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, lora_alpha=5, lora_dropout=0.1, target_modules=targets, task_type="CAUSAL_LM")
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=bool(items))
    lora, adapter = load_adapter(tmp_path / "adapter", config, params)
    assert lora == LoraConfig(2, 5.0, 0.1, ("v_proj", "o_proj", "gate_proj"))
    theirs = their_logits(wrapped, TOKENS)
    assert np.abs(theirs[..., : SIZES["vocab_size"]] - plain).max() > 0.1
    assert len(adapter.get("item_embedding", ())) == items
    np.testing.assert_allclose(our_logits(config, params, adapter, lora, TOKENS), theirs, rtol=0, atol=1e-4)
