import dataclasses

import pytest

from atspeed_jax.models.llama_config import LlamaConfig

CONFIG = LlamaConfig(14, 16, 24, 1, 4, 2, 8, 10_000.0, 1e-6, True, 0.0, "float32", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
        ({"head_dim": 5}, "head_dim=5 is odd"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"model_type": "gpt2"}, "model_type='gpt2': expected one of llama, mistral, qwen2, qwen3"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias=True with model_type='mistral'"),
        ({"precision": "tf32"}, "precision='tf32': expected one of highest, high, default"),
    ],
)
def test_impossible_sizes(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)
