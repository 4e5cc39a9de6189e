"""Loads and saves the weights of a Hugging Face model, in safetensors only.

Hugging Face has a tensor per layer and matrices [out, in]. Our parameters are stacked
over layers, and matrices are [in, out]. One table of names (NAMES) serves both
directions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from safetensors import safe_open
from safetensors.numpy import save_file

from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.models.weight_files import (
    EMBEDDING,
    HEAD,
    INDEX_FILE,
    ONE_FILE,
    WeightsError,
    file_groups,
    tensor_files,
)
from atspeed_jax.utils.files import write_json


@dataclasses.dataclass(frozen=True)
class Name:
    """A parameter's name in Hugging Face's files and its path in our tree.

    Attributes:
      theirs: the name; "{layer}" stands for the number of the layer.
      ours: the path.
      matrix: the tensor is stored transposed.
      switch: property of `LlamaConfig` that must be true if the model has the tensor.
    """

    theirs: str
    ours: str
    matrix: bool = True
    switch: str = ""

    @property
    def of_tokens(self) -> bool:
        """Whether the tensor has a row for every token."""
        return self.ours in ("embedding", "head/kernel")

    @property
    def per_layer(self) -> bool:
        """Whether every layer has such a tensor."""
        return "{layer}" in self.theirs


_LAYER = "model.layers.{layer}."
NAMES = (
    Name(EMBEDDING, "embedding", matrix=False),
    Name(_LAYER + "input_layernorm.weight", "layers/attention_norm/scale", matrix=False),
    Name(_LAYER + "self_attn.q_proj.weight", "layers/attention/query/kernel"),
    Name(_LAYER + "self_attn.k_proj.weight", "layers/attention/key/kernel"),
    Name(_LAYER + "self_attn.v_proj.weight", "layers/attention/value/kernel"),
    Name(_LAYER + "self_attn.o_proj.weight", "layers/attention/output/kernel"),
    Name(_LAYER + "self_attn.q_proj.bias", "layers/attention/query/bias", False, "qkv_bias"),
    Name(_LAYER + "self_attn.k_proj.bias", "layers/attention/key/bias", False, "qkv_bias"),
    Name(_LAYER + "self_attn.v_proj.bias", "layers/attention/value/bias", False, "qkv_bias"),
    Name(_LAYER + "self_attn.o_proj.bias", "layers/attention/output/bias", False, "output_bias"),
    Name(_LAYER + "self_attn.q_norm.weight", "layers/attention/query_norm/scale", False, "qk_norm"),
    Name(_LAYER + "self_attn.k_norm.weight", "layers/attention/key_norm/scale", False, "qk_norm"),
    Name(_LAYER + "post_attention_layernorm.weight", "layers/mlp_norm/scale", matrix=False),
    Name(_LAYER + "mlp.gate_proj.weight", "layers/mlp/gate/kernel"),
    Name(_LAYER + "mlp.up_proj.weight", "layers/mlp/up/kernel"),
    Name(_LAYER + "mlp.down_proj.weight", "layers/mlp/down/kernel"),
    Name("model.norm.weight", "norm/scale", matrix=False),
    Name(HEAD, "head/kernel"),
)


def param_shapes(config: LlamaConfig) -> dict[str, Any]:
    """Makes the shapes of a model's parameters; nothing is allocated."""
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


def _leaf(tree: Mapping, path: str) -> Any:
    return functools.reduce(lambda node, key: node[key], path.split("/"), tree)


def _names(config: LlamaConfig) -> tuple[Name, ...]:
    held = (name for name in NAMES if not name.switch or getattr(config, name.switch))
    return tuple(name for name in held if name.theirs != HEAD or not config.tied_embeddings)


def their_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Lists name and shape of every tensor that the files of a model hold."""
    shapes, expected = param_shapes(config), {}
    for name in _names(config):
        shape = _leaf(shapes, name.ours).shape[name.per_layer :]
        shape = shape[::-1] if name.matrix else shape
        for layer in range(config.layers if name.per_layer else 1):
            expected[name.theirs.format(layer=layer)] = shape
    return expected


def load_weights(
    directory: Path, config: LlamaConfig, *, dtype: str = "float32", shardings=None, rows: np.ndarray | None = None
) -> dict[str, Any]:
    """Loads the parameters of a Hugging Face model.

    The host holds one tensor of the files at a time.

    Args:
      directory: of the model.
      config: of the model.
      dtype: of the parameters.
      shardings: a tree of NamedSharding like the parameters, so that each device reads
        only its part; None for the first device.
      rows: [W], the row of the files that each token is; None for the order of the
        files. A row behind those of the files is zero.

    Returns:
      The parameters, of W tokens with `rows`.

    Raises:
      WeightsError: files are missing or damaged, or do not hold exactly the tensors of
        `config`. The error comes before anything is loaded and names all problems.
    """
    files = weight_files(Path(directory), config)
    first = SingleDeviceSharding(jax.local_devices()[0])
    shapes, tree = param_shapes(config), {}
    for name in _names(config):
        *parents, last = name.ours.split("/")
        sharding = first if shardings is None else _leaf(shardings, name.ours)
        shape = _leaf(shapes, name.ours).shape
        node = functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)
        if rows is not None and name.of_tokens:
            node[last] = _load_rows(files[name.theirs], name, rows, shape, jnp.dtype(dtype), sharding)
        else:
            node[last] = _load_leaf(files, name, shape, jnp.dtype(dtype), sharding)
    return tree


def _load_rows(path: Path, name: Name, rows: np.ndarray, shape: tuple[int, ...], dtype, sharding) -> jax.Array:
    """Loads the rows of tokens, in another order than they are stored in."""
    axis = 1 if name.matrix else 0
    stored, width = shape[axis], shape[1 - axis]

    def part(index) -> np.ndarray:
        tokens, columns = index[axis], index[1 - axis]
        wanted = rows[tokens]
        with safe_open(path, "numpy") as file:
            values = file.get_slice(name.theirs)[:, columns][np.minimum(wanted, stored - 1)]
        values = np.where((wanted < stored)[:, None], values, np.zeros((), values.dtype))
        return np.ascontiguousarray(values.T if name.matrix else values, dtype)

    made = (width, len(rows)) if name.matrix else (len(rows), width)
    return jax.block_until_ready(jax.make_array_from_callback(made, sharding, part))


def _load_leaf(files: Mapping[str, Path], name: Name, shape: tuple[int, ...], dtype, sharding) -> jax.Array:
    if not name.per_layer:
        return _load_tensor(files[name.theirs], name.theirs, shape, name.matrix, dtype, sharding)
    inner = sharding
    if isinstance(sharding, NamedSharding):
        inner = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    leaf = jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=sharding)(shape, dtype)
    for layer in range(shape[0]):
        theirs = name.theirs.format(layer=layer)
        tensor = _load_tensor(files[theirs], theirs, shape[1:], name.matrix, dtype, inner)
        leaf = _insert(leaf, tensor, layer)
    return leaf


@functools.partial(jax.jit, donate_argnums=0)
def _insert(leaf: jax.Array, tensor: jax.Array, layer: int) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(leaf, tensor, layer, 0)


def _load_tensor(path: Path, theirs: str, shape: tuple[int, ...], matrix: bool, dtype, sharding) -> jax.Array:
    """Loads the tensor `theirs` in our shape; matrix: it is stored transposed."""

    def part(index) -> np.ndarray:
        with safe_open(path, "numpy") as file:  # closed before the copies below: what it maps is memory, too
            values = file.get_slice(theirs)[index[::-1] if matrix else index]
        return np.ascontiguousarray(values.T if matrix else values, dtype)

    # The host holds its copy until the devices have it. Without waiting, copies would
    # pile up.
    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, part))


def weight_files(directory: Path, config: LlamaConfig) -> dict[str, Path]:
    """Finds the file of each expected tensor.

    Raises:
      WeightsError: see `load_weights`.
    """
    return tensor_files(directory, their_shapes(config), tied=config.tied_embeddings)


def save_weights(
    directory: Path,
    config: LlamaConfig,
    params: Mapping,
    *,
    dtype: str = "float32",
    file_bytes: int = 5 * 10**9,
    rows: np.ndarray | None = None,
) -> None:
    """Saves parameters as Hugging Face names and lays them out.

    The host holds the tensors of one file at a time.

    Args:
      directory: to write to.
      config: of the model.
      params: its parameters.
      dtype: of the stored tensors.
      file_bytes: most bytes of a file, unless a single tensor is larger.
      rows: [V], the row of the files that each token is, a permutation; None for the
        order of the tokens.

    Raises:
      WeightsError: the directory has weights already.
    """
    for old in (ONE_FILE, INDEX_FILE):
        if (directory / old).exists():
            raise WeightsError(f"{directory} already has {old}; give a new directory, or delete it")
    sizes = {name: int(np.prod(shape)) * jnp.dtype(dtype).itemsize for name, shape in their_shapes(config).items()}
    groups = file_groups(sizes, file_bytes)
    total = len(groups)
    names = [ONE_FILE] if total == 1 else [f"model-{n + 1:05}-of-{total:05}.safetensors" for n in range(total)]
    tensors = their_tensors(config, params, dtype, rows)
    for file, group in zip(names, groups, strict=True):
        save_file(dict(next(tensors) for _ in group), directory / file, {"format": "pt"})
    if total > 1:
        placed = {tensor: file for file, group in zip(names, groups, strict=True) for tensor in group}
        write_json(directory / INDEX_FILE, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": placed})


def their_tensors(
    config: LlamaConfig, params: Mapping, dtype: str, rows: np.ndarray | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and tensor in the order of `their_shapes`, one at a time.

    Args: see `save_weights`.
    """
    for name in _names(config):
        leaf = _leaf(params, name.ours)
        for layer in range(config.layers if name.per_layer else 1):
            tensor = np.asarray(leaf[layer] if name.per_layer else leaf)
            tensor = (tensor.T if name.matrix else tensor).astype(dtype)
            if rows is not None and name.of_tokens:
                tensor = tensor[np.argsort(rows)]
            # safetensors writes the buffer as it lies in memory, so a transposed view
            # must be copied.
            yield name.theirs.format(layer=layer), np.ascontiguousarray(tensor)
