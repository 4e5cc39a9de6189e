"""Directories of small weight files, whole or spoiled, and what loading says of them."""

import dataclasses
import json

import pytest
from safetensors.numpy import load_file, save_file

from atspeed_jax.models.weight_files import INDEX_FILE, ONE_FILE, WeightsError
from atspeed_jax.models.weights import load_weights, save_weights
from bases import BASE
from numpy_llama import wide_params

CONFIG = dataclasses.replace(
    BASE,
    vocab_size=11,
    hidden_size=8,
    intermediate_size=12,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=2,
    rope_theta=100.0,
    norm_eps=1e-5,
)
TIED = dataclasses.replace(CONFIG, tied_embeddings=True)


def stored(directory, config=CONFIG, **changes):
    """A whole model in one file with tensors changed, removed (None) or added."""
    save_weights(directory, config, wide_params(config, seed=0))
    tensors = {
        name: tensor for name, tensor in (load_file(directory / ONE_FILE) | changes).items() if tensor is not None
    }
    save_file(tensors, directory / ONE_FILE, {"format": "pt"})


def problems(directory, config=CONFIG):
    with pytest.raises(WeightsError) as error:
        load_weights(directory, config)
    return str(error.value)


def split_in_files(directory):
    save_weights(directory, CONFIG, wide_params(CONFIG, seed=0), file_bytes=1500)
    return json.loads((directory / INDEX_FILE).read_text())
