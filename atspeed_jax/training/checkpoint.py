"""Checkpoints: the state of a run while it trains, and the parameters of a finished model. Orbax, no pickle."""

import hashlib
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from atspeed_jax.files import jsonable, write_json
from atspeed_jax.processes import agreed, barrier, gather
from atspeed_jax.training.workdir import WorkdirError, read_json

METADATA_FILE = "metadata.json"
PARAMS_DIR = "params"


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete, or of another model."""


def path_name(path) -> str:
    """Tree path as text, like layers/attention/q; the same for a tuple and the list it is stored as."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def fingerprint_of(params) -> str:
    """SHA-256 (hex) over the leaves in order of their paths: path, shape, dtype, bytes (row-major).

    Says whether two trees are bit-identical, wherever their arrays live.
    """
    digest = hashlib.sha256()
    leaves = ((path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params))
    for name, leaf in sorted(leaves, key=lambda item: item[0]):
        array = gather(leaf)
        digest.update(f"{name}\0{array.shape}\0{array.dtype}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _LatestAndBest:
    """Preservation policy: the newest checkpoint, and the one of the best evaluation the newest knows of."""

    def __init__(self, best_step: int | None):
        self.best_step = best_step

    def should_preserve(self, checkpoints, *, context):
        newest = max((checkpoint.step for checkpoint in checkpoints), default=None)
        return [checkpoint.step in (newest, self.best_step) for checkpoint in checkpoints]


class TrainCheckpoints:
    """Training states by step, written in the background; keeps the newest and the best.

    Each save is a directory that appears under its final name only when complete, and an older one is deleted only
    after that, so a kill at any moment leaves the newest complete state and the best state it names.
    """

    def __init__(self, directory):
        self._directory = Path(directory).absolute()
        self._policy = _LatestAndBest(None)
        self._saving = None
        self._checkpointer = ocp.training.Checkpointer(
            self._directory, preservation_policy=self._policy, cleanup_tmp_directories=True
        )

    def latest(self) -> tuple[int, dict] | None:
        """(step, progress) of the newest complete checkpoint, or None."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        return latest.step, self._checkpointer.checkpointables_metadata(latest.step).custom_metadata

    def save(self, step: int, state: dict, progress: dict, best_step: int | None) -> None:
        """Start saving {"params", ...} and the JSON dict `progress`; waits only for the save before to finish.

        best_step (which may be `step`) names the checkpoint to keep beside the newest.
        """
        self._policy.best_step = best_step
        rest = {name: value for name, value in state.items() if name != "params"}
        self._saving = self._checkpointer.save_checkpointables_async(
            step, {"params": state["params"], "rest": rest}, force=True, custom_metadata=progress
        )

    def restore(self, step: int, abstract: dict) -> dict:
        """The state saved at `step`, with the structure and shardings of `abstract`.

        Raises CheckpointError if its parameters are those of another model.
        """
        stored = self._checkpointer.checkpointables_metadata(step).metadata["params"]
        _check_same_tree(self._directory / str(step), stored, abstract["params"])
        rest = {name: value for name, value in abstract.items() if name != "params"}
        loaded = self._checkpointer.load_checkpointables(step, {"params": abstract["params"], "rest": rest})
        return {"params": loaded["params"], **loaded["rest"]}

    def restore_params(self, step: int, abstract):
        """The parameters alone of the state saved at `step`; waits for a save under way, which may be that one."""
        if self._saving is not None:
            self._saving.result()
        return self._checkpointer.load_checkpointables(step, {"params": abstract})["params"]

    def close(self) -> None:
        """Wait for a save under way and release the checkpointer."""
        self._checkpointer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_finished(directory) -> bool:
    """Whether the directory holds the parameters of a finished model."""
    return (Path(directory) / METADATA_FILE).is_file()


def save_params(directory, params, metadata: dict) -> None:
    """Save a finished model: DIR/params by orbax, then `metadata` as DIR/metadata.json, whose presence says "complete".

    Raises WorkdirError if the directory already holds a finished model or cannot be written.
    """
    directory = Path(directory).absolute()
    if agreed(lambda: is_finished(directory)):
        raise WorkdirError(f"{directory} already holds a finished model; use another directory, or delete it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        ocp.save(directory / PARAMS_DIR, params, overwrite=True)
        write_json(directory / METADATA_FILE, jsonable(metadata))
        barrier(f"{directory} is finished")
    except OSError as error:
        raise WorkdirError(f"{directory} cannot be written ({error}); use another directory") from error


def load_params(directory, abstract, *, fingerprint: str | None = None):
    """Load a finished model as (params, metadata).

    abstract is a tree of arrays or jax.ShapeDtypeStruct, as jax.eval_shape gives it; leaves go to its shardings, or to
    the first device where it has none. If `fingerprint` is given, the stored one must equal it.

    Raises CheckpointError if the directory is missing or incomplete, or the model is of another configuration.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise CheckpointError(f"{directory} does not exist; expected the directory of a finished model: train it first")
    if not is_finished(directory):
        raise CheckpointError(
            f"{directory} holds no finished model ({METADATA_FILE} is missing); "
            "run its training again, which resumes and finishes it"
        )
    metadata = read_json(directory / METADATA_FILE)
    if fingerprint is not None and metadata.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{directory} is a checkpoint of another configuration: its fingerprint is "
            f"{metadata.get('fingerprint')!r}, expected {fingerprint!r}; give the configuration it was trained with, "
            "or train again in another directory"
        )
    return _load_tree(directory / PARAMS_DIR, abstract), metadata


def _load_tree(path: Path, abstract):
    """Load a tree of arrays; CheckpointError if it is missing, damaged, or another tree."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or first),
        abstract,
    )
    try:
        stored = ocp.metadata(path).metadata
        if not jax.tree.leaves(stored):  # what orbax makes of a lost index
            raise ValueError("it lists no arrays")
    except (ocp.errors.InvalidLayoutError, OSError, ValueError) as error:
        raise CheckpointError(_damaged(path, error)) from error
    _check_same_tree(path, stored, abstract)
    try:
        return ocp.load(path, target)
    except (OSError, ValueError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is missing or damaged ({str(error)[:300]}); delete {path.parent} and train again"


def _check_same_tree(path: Path, stored, abstract) -> None:
    """Raise CheckpointError naming the first few leaves in which two trees of arrays differ."""

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
