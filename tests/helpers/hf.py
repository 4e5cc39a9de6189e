"""A Hugging Face model taken apart, rung by rung, and ours beside it. Only `their_*` and `random_llama` need torch.

    python tests/helpers/hf.py [NAME ...]   # writes tests/golden/NAME anew, from transformers; all of VARIANTS

A golden file may change only if a newer transformers computes something else: then the live ladder tells first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.models.blocks import RMSNorm
from atspeed_jax.models.layers import MLP, Attention, Dense, Layer
from atspeed_jax.models.llama import forward
from atspeed_jax.models.rotary import rotary_angles
from atspeed_jax.shapes import SlotMask

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SIZES = {
    "vocab_size": 38,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Name of the directory in tests/golden -> fields of config.json beside SIZES.
VARIANTS = {
    "llama_untied": {"rope_theta": 500.0},
    "llama_tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
    "llama_llama3": {
        "rope_theta": 5e5,
        "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 32},
        "num_key_value_heads": 1,
        "head_dim": 12,
    },
    "llama_linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.5}},
    "llama_biases": {"attention_bias": True, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 10},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1e6, "head_dim": 6, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "rope_theta": 1e6, "num_key_value_heads": 1, "rms_norm_eps": 1e-6},
}
LIVE = VARIANTS | {"qwen3_biases": {"model_type": "qwen3", "attention_bias": True, "tie_word_embeddings": True}}
TOKENS = np.array([[5, 9, 36, 0, 17, 2, 2, 30, 11], [1, 2, 3, 4, 5, 6, 7, 8, 9]], np.int32)


def random_llama(**fields):
    """A model of SIZES with weights large enough for every part to matter: biases and scales of norms, too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    fields = {"model_type": "llama"} | SIZES | fields
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3 if "norm" in name else 0.25)
    return model


def their_rungs(model, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What each part of layer 0, and the whole, computes for tokens [B, T] without padding."""
    import torch

    seen = {}

    def note(name, module):
        return module.register_forward_hook(lambda *call: seen.__setitem__(name, call[2]))

    layer = model.model.layers[0]
    parts = {
        "embed": model.model.embed_tokens,
        "rope": model.model.rotary_emb,
        "norm": layer.input_layernorm,
        "attention": layer.self_attn,
        "mlp": layer.mlp,
        "layer": layer,
    }
    if hasattr(layer.self_attn, "q_norm"):
        parts |= {"query_norm": layer.self_attn.q_norm, "key_norm": layer.self_attn.k_norm}
    hooks = [note(name, module) for name, module in parts.items()]
    with torch.no_grad():
        seen["logits"] = model(torch.from_numpy(tokens).long()).logits
    for hook in hooks:
        hook.remove()
    cos, sin = (part[..., : part.shape[-1] // 2].expand(*tokens.shape, -1) for part in seen.pop("rope"))
    whole = {name: value[0] if isinstance(value, tuple) else value for name, value in seen.items()}
    return {name: value.float().numpy() for name, value in (whole | {"cos": cos, "sin": sin}).items()}


def our_rungs(config, params, tokens: np.ndarray) -> dict[str, jax.Array]:
    """The same of ours."""
    valid = jnp.ones(tokens.shape, bool)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    rotary = rotary_angles(positions, config.head_dim, config.rope_theta, config.rope_scaling, jnp.float32)
    mask, first = SlotMask.causal(valid), jax.tree.map(lambda leaf: leaf[0], params["layers"])

    def part(module, name, *inputs):
        return module.apply({"params": first[name]}, *inputs)

    embed = params["embedding"][tokens]
    norm = part(RMSNorm(config.norm_eps), "attention_norm", embed)
    attention, _ = part(Attention(config), "attention", norm, rotary, mask, None, None)
    norms = {}
    for name in ("query", "key") if config.qk_norm else ():
        matrix = first["attention"][name]
        dense = Dense(config, matrix["kernel"].shape[-1], bias=config.qkv_bias)
        heads = dense.apply({"params": matrix}, norm).reshape(*tokens.shape, -1, config.head_dim)
        norms[f"{name}_norm"] = RMSNorm(config.norm_eps).apply({"params": first["attention"][f"{name}_norm"]}, heads)
    return norms | {
        "embed": embed,
        "cos": rotary[0],
        "sin": rotary[1],
        "norm": norm,
        "attention": attention,
        "mlp": part(MLP(config), "mlp", part(RMSNorm(config.norm_eps), "mlp_norm", embed + attention)),
        "layer": Layer(config, True).apply({"params": first}, embed, None, rotary, mask, None)[0],
        "logits": forward(config, params, tokens, valid),
    }


def assert_same_rungs(ours, theirs) -> None:
    """Within 1e-4, bottom rung first, so that the first that differs is the one to look at."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert theirs[name].std() > 0.05, f"{name} hardly varies: a mistake would hide below the tolerance"
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-4, err_msg=name)


def write_golden() -> None:
    """For every variant named: its config.json and weights as transformers saves them, and the rungs."""
    from safetensors.numpy import save_file

    for name in sys.argv[1:] or VARIANTS:
        model, directory = random_llama(**VARIANTS[name]), GOLDEN / name
        model.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        save_file({key: np.ascontiguousarray(x) for key, x in their_rungs(model, TOKENS).items()}, directory / "rungs")
        fields = json.loads((directory / "config.json").read_text())
        print(directory, fields["transformers_version"])


if __name__ == "__main__":
    sys.exit(write_golden())
