"""The parameters of a finished model on disk. No pickle."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from atspeed_jax.training.directory import (
    CHECKPOINTS_DIR,
    METADATA_FILE,
    PARAMS_DIR,
    TrainingDirectoryError,
    read_record,
)
from atspeed_jax.utils.distributed import agreed, barrier, gather
from atspeed_jax.utils.files import chain_of, first_damaged, jsonable, naming, sizes_of, write_json


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete, or of another model."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that cannot be read.

    Attributes:
      damage: what is wrong, without the remedy.
    """

    def __init__(self, damage: str, remedy: str):
        super().__init__(f"{damage}; {remedy}")
        self.damage = damage


def path_name(path) -> str:
    """A tree path as text, such as layers/attention/q.

    A tuple and the list that orbax stores it as have the same text.
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def fingerprint_of(params) -> str:
    """Hashes a tree of arrays. Trees with equal hashes are bit-identical.

    Returns:
      SHA-256 in hexadecimal over the leaves in order of their paths: path, shape, dtype
      and bytes (row-major). The devices of the arrays do not matter.
    """
    digest = hashlib.sha256()
    leaves = ((path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params))
    for name, leaf in sorted(leaves, key=lambda item: item[0]):
        array = gather(leaf)
        digest.update(f"{name}\0{array.shape}\0{array.dtype}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def is_finished(directory) -> bool:
    """Whether the directory holds the parameters of a finished model."""
    return (Path(directory) / METADATA_FILE).is_file()


def check_never_finished(directory: Path) -> None:
    """Checks that no finished parameters are left whose metadata.json is lost.

    Called where no training state is left: training from the start would replace them.

    Raises:
      CheckpointError: params/ exists.
    """
    if agreed((directory / PARAMS_DIR).exists):
        raise _lost_metadata(directory)


def _lost_metadata(directory: Path) -> CheckpointError:
    return CheckpointError(
        f"{directory / METADATA_FILE} is missing beside the parameters of a finished model; restore it, or move "
        f"{directory} away to train again"
    )


def save_params(directory, params, metadata: dict) -> None:
    """Saves a finished model.

    DIR/params is written by orbax. DIR/metadata.json is written last: its presence says
    that the model is complete.

    Args:
      params: the tree of arrays.
      metadata: content of metadata.json. The sizes of the files in params/ are added as
        "files".

    Raises:
      TrainingDirectoryError: the directory already holds a finished model or cannot be
        written.
    """
    directory = Path(directory).absolute()
    if agreed(lambda: is_finished(directory)):
        raise TrainingDirectoryError(
            f"{directory} already holds a finished model; use another directory, or move it away"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with naming(directory / PARAMS_DIR):
            ocp.save(str(directory / PARAMS_DIR), params, overwrite=True)
        write_json(directory / METADATA_FILE, jsonable(metadata) | {"files": sizes_of(directory / PARAMS_DIR)})
        barrier(f"{directory} is finished")
    except OSError as error:
        raise TrainingDirectoryError(f"{directory} cannot be written ({error}); use another directory") from error


def load_params(directory, abstract, *, fingerprint: str | None = None):
    """Loads a finished model.

    Args:
      abstract: tree of arrays or jax.ShapeDtypeStruct, as jax.eval_shape gives it.
        Leaves go to its shardings, or to the first device where it has none.
      fingerprint: what the stored fingerprint must equal; None for any.

    Returns:
      (params, metadata).

    Raises:
      CheckpointError: the directory is missing, incomplete or damaged, or the model is
        of another configuration.
      TrainingDirectoryError: metadata.json is damaged.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise CheckpointError(f"{directory} does not exist; expected the directory of a finished model: train it first")
    if not is_finished(directory):
        if (directory / PARAMS_DIR).exists() and not any((directory / CHECKPOINTS_DIR).glob("[0-9]*")):
            raise _lost_metadata(directory)  # training would refuse this directory too
        raise CheckpointError(
            f"{directory} holds no finished model ({METADATA_FILE} is missing); "
            "run its training again, which resumes and finishes it"
        )
    metadata = read_record(directory / METADATA_FILE)
    if fingerprint is not None and metadata.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{directory} is a checkpoint of another configuration: its fingerprint is "
            f"{metadata.get('fingerprint')!r}, expected {fingerprint!r}; give the configuration it was trained with, "
            "or train again in another directory"
        )
    remedy = f"delete {directory} and train again"
    sizes = metadata.get("files", {})
    if not isinstance(sizes, dict):
        raise DamagedCheckpoint(f"{directory / METADATA_FILE} is damaged (files is no JSON object)", remedy)
    if damage := first_damaged(directory / PARAMS_DIR, sizes):
        raise DamagedCheckpoint(damage, remedy)
    return _load_tree(directory / PARAMS_DIR, abstract, remedy), metadata


def _load_tree(path: Path, abstract, remedy: str):
    """Loads a tree; CheckpointError if it is missing, damaged, or another tree."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or first),
        abstract,
    )
    with reading(path, remedy):
        stored = ocp.metadata(str(path)).metadata
        check_listed(stored)
    check_same_tree(path, stored, abstract)
    with reading(path, remedy):
        return ocp.load(str(path), target)


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turns what orbax raises about files below `path` into DamagedCheckpoint.

    Orbax raises any exception for lost or damaged files, even Exception itself. Errors
    of a device are no damage and pass through.

    Args:
      remedy: what the user can do.
    """
    try:
        yield
    except Exception as error:
        causes = list(chain_of(error))
        if any(isinstance(cause, jax.errors.JaxRuntimeError | MemoryError) for cause in causes):
            raise
        raise DamagedCheckpoint(f"{path} is missing or damaged ({str(causes[-1])[:300]})", remedy) from error


def check_listed(stored) -> None:
    """Raises ValueError for an empty tree: orbax makes one of a lost index."""
    if not jax.tree.leaves(stored):
        raise ValueError("it lists no arrays")


def check_same_tree(path: Path, stored, abstract) -> None:
    """Checks that a stored tree has the paths, shapes and dtypes that are expected.

    Raises:
      CheckpointError: they differ; the message names the first few leaves.
    """

    def described(tree) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {path_name(path): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves}

    have, want = described(stored), described(abstract)
    wrong = [name for name in sorted(have | want) if have.get(name) != want.get(name)]
    if wrong:
        few = "; ".join(f"{n}: stored {have.get(n, 'nothing')}, expected {want.get(n, 'nothing')}" for n in wrong[:4])
        raise CheckpointError(
            f"{path} is a checkpoint of another configuration: {len(wrong)} leaves differ ({few}); "
            "give the configuration it was trained with, or train again in another directory"
        )
