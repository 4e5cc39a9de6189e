"""Loads and saves the weights of a Hugging Face Llama, in safetensors only.

Hugging Face has a tensor per layer and matrices [out, in]. Our parameters are stacked
over layers, and matrices are [in, out]. One table of names (NAMES) serves both
directions.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.utils.files import write_json

ONE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # name in a file -> NumPy's
RECOMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")  # buffers of older releases
PROBLEMS_SHOWN = 20


class WeightsError(ValueError):
    """Weight files that do not hold exactly the tensors of the model."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A parameter's name in Hugging Face's files and its path in our tree.

    Attributes:
      theirs: the name; "{layer}" stands for the number of the layer.
      ours: the path.
      matrix: the tensor is stored transposed.
    """

    theirs: str
    ours: str
    matrix: bool = True

    @property
    def per_layer(self) -> bool:
        """Whether every layer has such a tensor."""
        return "{layer}" in self.theirs


_LAYER = "model.layers.{layer}."
NAMES = (
    Name("model.embed_tokens.weight", "embedding", matrix=False),
    Name(_LAYER + "input_layernorm.weight", "layers/attention_norm/scale", matrix=False),
    Name(_LAYER + "self_attn.q_proj.weight", "layers/attention/query/kernel"),
    Name(_LAYER + "self_attn.k_proj.weight", "layers/attention/key/kernel"),
    Name(_LAYER + "self_attn.v_proj.weight", "layers/attention/value/kernel"),
    Name(_LAYER + "self_attn.o_proj.weight", "layers/attention/output/kernel"),
    Name(_LAYER + "post_attention_layernorm.weight", "layers/mlp_norm/scale", matrix=False),
    Name(_LAYER + "mlp.gate_proj.weight", "layers/mlp/gate/kernel"),
    Name(_LAYER + "mlp.up_proj.weight", "layers/mlp/up/kernel"),
    Name(_LAYER + "mlp.down_proj.weight", "layers/mlp/down/kernel"),
    Name("model.norm.weight", "norm/scale", matrix=False),
    Name("lm_head.weight", "head/kernel"),
)


def param_shapes(config: LlamaConfig) -> dict[str, Any]:
    """Makes the shapes of a model's parameters; nothing is allocated."""
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


def _leaf(tree: Mapping, path: str) -> Any:
    return functools.reduce(lambda node, key: node[key], path.split("/"), tree)


def _names(config: LlamaConfig) -> tuple[Name, ...]:
    return tuple(name for name in NAMES if name.ours != "head/kernel" or not config.tied_embeddings)


def their_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Lists name and shape of every tensor that the files of a model hold."""
    shapes, expected = param_shapes(config), {}
    for name in _names(config):
        shape = _leaf(shapes, name.ours).shape[name.per_layer :]
        shape = shape[::-1] if name.matrix else shape
        for layer in range(config.layers if name.per_layer else 1):
            expected[name.theirs.format(layer=layer)] = shape
    return expected


def load_weights(directory: Path, config: LlamaConfig, *, dtype: str = "float32", shardings=None) -> dict[str, Any]:
    """Loads the parameters of a Hugging Face Llama.

    The host holds one tensor of the files at a time.

    Args:
      directory: of the model.
      config: of the model.
      dtype: of the parameters.
      shardings: a tree of NamedSharding like the parameters, so that each device reads
        only its part; None for the first device.

    Returns:
      The parameters.

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
        node[last] = _load_leaf(files, name, shape, jnp.dtype(dtype), sharding)
    return tree


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
    stored, problems = _stored(directory)
    expected = their_shapes(config)
    if config.tied_embeddings and "lm_head.weight" in stored:
        problems.append("lm_head.weight is stored although config.json ties it to the embedding (tie_word_embeddings)")
        del stored["lm_head.weight"]
    problems += [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is no tensor of this model" for name in stored if name not in expected]
    for name, (_, shape, kind) in stored.items():
        if name in expected and shape != expected[name]:
            problems.append(f"{name} has shape {list(shape)}, expected {list(expected[name])}")
        if name in expected and kind not in DTYPES:
            problems.append(f"{name} is stored as {kind}, expected one of {', '.join(DTYPES)}")
    if problems:
        more = [f"and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        raise WeightsError(
            f"{directory} does not hold the weights that its config.json describes: "
            + "; ".join(problems[:PROBLEMS_SHOWN] + more)
        )
    return {name: path for name, (path, _, _) in stored.items()}


def _stored(directory: Path) -> tuple[dict[str, tuple[Path, tuple[int, ...], str]], list[str]]:
    """Lists file, shape and dtype of each tensor, and problems; skips buffers."""
    placed, problems = _listed_files(directory)
    stored: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for path, listed in placed.items():
        try:
            with safe_open(path, "numpy") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no iterable)
                held = {name: (path, tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
        except FileNotFoundError:
            problems.append(f"{path.name}, named by {INDEX_FILE}, is missing")
            continue
        except (SafetensorError, OSError) as error:
            problems.append(f"{path.name} is damaged or cut off ({error})")
            continue
        if listed is not None:
            problems += [f"{INDEX_FILE} puts {name} into {path.name}, which lacks it" for name in listed - held.keys()]
            problems += [
                f"{path.name} holds {name}, which {INDEX_FILE} does not put there" for name in held.keys() - listed
            ]
        problems += [
            f"{name} is in both {stored[name][0].name} and {path.name}" for name in held.keys() & stored.keys()
        ]
        stored |= held
    return {name: found for name, found in stored.items() if not RECOMPUTED.fullmatch(name)}, problems


def _listed_files(directory: Path) -> tuple[dict[Path, set[str] | None], list[str]]:
    """Lists weight files with their tensors (None without an index); and problems."""
    one, index = directory / ONE_FILE, directory / INDEX_FILE
    if one.is_file() and index.is_file():
        raise WeightsError(f"{directory} has both {ONE_FILE} and {INDEX_FILE}; remove the one that is out of date")
    if one.is_file():
        return {one: None}, []
    if not index.is_file():
        pickled = "; its .bin files are pickles, which are never loaded" if list(directory.glob("*.bin")) else ""
        raise WeightsError(
            f"{directory} has neither {ONE_FILE} nor {INDEX_FILE}{pickled}; save the model with "
            "save_pretrained(..., safe_serialization=True)"
        )
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} cannot be read ({error!r}); expected a JSON object with a weight_map") from error
    files: dict[Path, set[str]] = {}
    for tensor, file in entries:
        if not isinstance(file, str):
            raise WeightsError(f"{index} puts {tensor} into {file!r}, expected the name of a file")
        files.setdefault(directory / Path(file).name, set()).add(tensor)
    return dict(files), []


def save_weights(
    directory: Path, config: LlamaConfig, params: Mapping, *, dtype: str = "float32", file_bytes: int = 5 * 10**9
) -> None:
    """Saves parameters as Hugging Face names and lays them out.

    The host holds the tensors of one file at a time.

    Args:
      directory: to write to.
      config: of the model.
      params: its parameters.
      dtype: of the stored tensors.
      file_bytes: most bytes of a file, unless a single tensor is larger.

    Raises:
      WeightsError: the directory has weights already.
    """
    for old in (ONE_FILE, INDEX_FILE):
        if (directory / old).exists():
            raise WeightsError(f"{directory} already has {old}; give a new directory, or delete it")
    sizes = {name: int(np.prod(shape)) * jnp.dtype(dtype).itemsize for name, shape in their_shapes(config).items()}
    groups = _groups(sizes, file_bytes)
    total = len(groups)
    names = [ONE_FILE] if total == 1 else [f"model-{n + 1:05}-of-{total:05}.safetensors" for n in range(total)]
    tensors = their_tensors(config, params, dtype)
    for file, group in zip(names, groups, strict=True):
        save_file(dict(next(tensors) for _ in group), directory / file, {"format": "pt"})
    if total > 1:
        placed = {tensor: file for file, group in zip(names, groups, strict=True) for tensor in group}
        write_json(directory / INDEX_FILE, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": placed})


def _groups(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Groups names in order; a group holds at most `limit` bytes, or one name."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def their_tensors(config: LlamaConfig, params: Mapping, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and tensor in the order of `their_shapes`, one at a time."""
    for name in _names(config):
        leaf = _leaf(params, name.ours)
        for layer in range(config.layers if name.per_layer else 1):
            tensor = np.asarray(leaf[layer] if name.per_layer else leaf)
            # safetensors writes the buffer as it lies in memory, so a transposed view
            # must be copied.
            yield (
                name.theirs.format(layer=layer),
                np.ascontiguousarray((tensor.T if name.matrix else tensor).astype(dtype)),
            )
