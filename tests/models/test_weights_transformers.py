"""Our Llama against transformers itself, live; skipped where it is not installed (golden files: test_weights.py)."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from atspeed_jax.export.hugging_face import export_hf  # noqa: E402
from atspeed_jax.items.catalog import Catalog  # noqa: E402
from atspeed_jax.models.hf_config import read_hf_config  # noqa: E402
from atspeed_jax.models.llama import forward  # noqa: E402
from atspeed_jax.models.weights import load_weights  # noqa: E402
from hf import LIVE, TOKENS, assert_same_rungs, our_rungs, random_llama, their_rungs  # noqa: E402
from numpy_llama import wide_params  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and torch


@pytest.mark.parametrize("variant", LIVE)
def test_ladder(tmp_path, variant):
    model = random_llama(**LIVE[variant])
    model.save_pretrained(tmp_path, max_shard_size="10KB")  # several files and an index
    assert (tmp_path / "model.safetensors.index.json").exists()
    config = read_hf_config(tmp_path)
    assert_same_rungs(our_rungs(config, load_weights(tmp_path, config), TOKENS), their_rungs(model, TOKENS))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_files(tmp_path, dtype):
    random_llama().to(getattr(torch, dtype)).save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").eval()
    config = read_hf_config(tmp_path)
    assert_same_rungs(our_rungs(config, load_weights(tmp_path, config), TOKENS), their_rungs(model, TOKENS))


@pytest.mark.parametrize("variant", ["llama_biases", "mistral", "qwen2", "qwen3_biases"])
def test_an_export_is_the_model_that_was_read(tmp_path, variant):
    """Class, config.json and tensors; what differs is what the export does not say."""
    model = random_llama(**LIVE[variant])
    model.save_pretrained(tmp_path / "theirs")
    config, catalog = read_hf_config(tmp_path / "theirs"), Catalog.from_codes(np.arange(36).reshape(12, 3) % 12)
    export_hf(tmp_path / "ours", config, load_weights(tmp_path / "theirs", config), catalog, history=5, dtype="float32")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is type(model)
    before, after = model.config.to_dict(), again.config.to_dict()
    free = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings", "_name_or_path")
    assert {name for name in before if before[name] != after.get(name)} <= set(free)
    assert after.get("sliding_window") is None
    ours = again.state_dict()
    for name, tensor in model.state_dict().items():
        assert tensor.numpy().tobytes() == ours[name].numpy().tobytes(), name


@pytest.mark.parametrize("tied", [False, True])
def test_an_export_is_loaded_by_auto_classes(tmp_path, tied):
    """Logits of theirs from our files, and text through their tokenizer."""
    catalog = Catalog.from_codes(np.random.default_rng(0).integers(0, 12, (40, 3)))
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    fields = {"rope_scaling": rope | {"original_max_position_embeddings": 32}, "tie_word_embeddings": tied}
    random_llama(vocab_size=catalog.vocab_size, **fields).save_pretrained(tmp_path / "sizes")
    config = read_hf_config(tmp_path / "sizes")
    params = wide_params(config, seed=3)
    export_hf(tmp_path / "ours", config, params, catalog, history=20, dtype="float32")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    batch = tokenizer(["<a_1><b_0><c_3><a_2>", "<a_5>"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist()[1] == [0, 0, 0, 1, int(catalog.level_offsets[0]) + 5]
    assert tokenizer.decode(batch["input_ids"][1], skip_special_tokens=True).replace(" ", "") == "<a_5>"
    keys = ("input_ids", "attention_mask")
    with torch.no_grad():
        theirs = model(**{key: batch[key] for key in keys}).logits.numpy()
    tokens, valid = (jnp.asarray(batch[key].numpy()) for key in keys)
    ours, real = forward(config, params, tokens, valid.astype(bool)), np.asarray(valid, bool)
    assert theirs[real].std() > 0.05
    np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["tie_word_embeddings"] is tied
