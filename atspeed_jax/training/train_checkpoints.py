"""The state of a run while it trains, in checkpoints from which it goes on. Orbax, no pickle.

STEP/            a state, by orbax
files.json       of each state the sizes of its files, and the step of the best parameters it knows of
damaged-STEP/    a state that was found damaged and passed over
"""

import functools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from atspeed_jax.training.checkpoint import CheckpointError, DamagedCheckpoint, check_listed, check_same_tree, reading
from atspeed_jax.utils.distributed import agreed, barrier, first_says, is_writer
from atspeed_jax.utils.files import first_damaged, naming, read_json, sizes_of, write_json

FILES_FILE = "files.json"
_STEP = re.compile("[0-9]{1,18}")
_NONE, _DAMAGED = -1, -2  # in the place of a step


class _LatestAndBest:
    """Preservation policy: the newest checkpoint, and the one of the best evaluation the newest knows of."""

    def __init__(self, best_step: int | None):
        self.best_step = best_step

    def should_preserve(self, checkpoints, *, context):
        newest = max((checkpoint.step for checkpoint in checkpoints), default=None)
        return [checkpoint.step in (newest, self.best_step) for checkpoint in checkpoints]


def _is_recorded(name: str, entry) -> bool:
    """Whether `TrainCheckpoints` wrote this entry of files.json."""
    if not _STEP.fullmatch(name) or not isinstance(entry, dict) or not isinstance(entry.get("files"), dict):
        return False
    best = entry.get("best", -1)
    known = best is None or (type(best) is int and 0 <= best <= int(name))  # the best is never a later one
    return known and all(type(size) is int for size in entry["files"].values())


class TrainCheckpoints:
    """Training states by step, written in the background; keeps the newest and the best.

    Each save is a directory that appears under its final name only when complete, and an older one is deleted only
    after that, so a kill at any moment leaves the newest complete state and the best state it names.
    """

    def __init__(self, directory):
        self._directory = Path(directory).absolute()
        self._policy = _LatestAndBest(None)
        self._saving = None

    @functools.cached_property
    def _checkpointer(self):
        # Made when something is saved: orbax remembers the steps that it finds, damaged ones too.
        return ocp.training.Checkpointer(
            self._directory, preservation_policy=self._policy, cleanup_tmp_directories=True
        )

    def steps(self) -> list[int]:
        """Steps of which there is a state, whole or not, ascending."""
        there = self._directory.iterdir() if self._directory.is_dir() else ()
        found = {path.name for path in there if _STEP.fullmatch(path.name)}
        return sorted({int(name) for name in found | set(self._recorded())})

    def resume(self, abstract: dict, say: Callable[[str], None]) -> tuple[int, dict, dict] | None:
        """(step, progress, state) of the newest state that is whole; None if none was ever saved.

        abstract: structure and shardings of the state. A damaged one is set aside, and `say` is told.

        Raises CheckpointError if every state is damaged, the parameters are those of another model, or something that
        is no directory is in the way.
        """
        if agreed(lambda: os.path.lexists(self._directory) and not self._directory.is_dir()):
            raise CheckpointError(
                f"{self._directory} is no directory; put the directory of the checkpoints back, or remove "
                f"{self._directory} to train from the start"
            )
        damaged: dict[int, str] = {}
        while (step := first_says(lambda: self._newest(damaged))) >= 0:
            try:
                progress, state = self._restore(step, abstract)
            except DamagedCheckpoint as error:
                if jax.process_count() > 1:  # the others may have read it
                    raise
                damaged[step] = error.damage
                continue
            self._set_aside(damaged, step, say)
            return step, progress, state
        if step == _NONE:
            return None
        told = "; ".join(damaged.values()) or "see what process 0 says"
        raise CheckpointError(
            f"no checkpoint in {self._directory} is whole ({told}); delete {self._directory.parent} to train from the "
            "start"
        )

    def _newest(self, damaged: dict[int, str]) -> int:
        """The newest step that is not known to be damaged; adds to `damaged` what is found out about later ones."""
        recorded = self._recorded()
        for step in reversed(self.steps()):
            if step in damaged:
                continue
            damage = self._damage(recorded, step)
            if damage is None:
                return step
            damaged[step] = damage
        return _DAMAGED if damaged else _NONE

    def _damage(self, recorded: dict, step: int) -> str | None:
        """What is wrong with a state or the best parameters it knows of, None if nothing is known to be."""
        path, entry = self._directory / str(step), recorded.get(str(step), {"files": {}, "best": None})
        if not path.is_dir():
            return f"{path} is missing"
        found = first_damaged(path, entry["files"])
        if found is None and entry["best"] not in (None, step):
            return self._damage(recorded, entry["best"])
        return found

    def _recorded(self) -> dict:
        try:
            found = read_json(self._directory / FILES_FILE, "")
        except (OSError, ValueError):
            found = {}  # states without it are found damaged when they are read
        return {name: entry for name, entry in found.items() if _is_recorded(name, entry)}

    def _set_aside(self, damaged: dict[int, str], step: int, say: Callable[[str], None]) -> None:
        """Damaged states out of the way of those to come, which bear the same steps."""
        for number, damage in sorted(damaged.items()):
            say(f"the checkpoint of step {number} is damaged ({damage}); going on from step {step}")
            path, aside = self._directory / str(number), self._directory / f"damaged-{number}"
            if is_writer() and path.exists():
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)
        barrier("damaged checkpoints are set aside")

    def save(self, step: int, state: dict, progress: dict, best_step: int | None) -> None:
        """Start saving {"params", ...} and the JSON dict `progress`, not empty; waits only for the save before to
        finish.

        best_step (which may be `step`) names the checkpoint to keep beside the newest.
        """
        self._finish()
        self._policy.best_step = best_step
        rest = {name: value for name, value in state.items() if name != "params"}
        with naming(self._directory):
            saving = self._checkpointer.save_checkpointables_async(
                step, {"params": state["params"], "rest": rest}, force=True, custom_metadata=progress
            )
        self._saving = step, best_step, saving

    def _finish(self) -> None:
        """Wait for a save under way and record its files."""
        if self._saving is None:
            return
        (step, best_step, saving), self._saving = self._saving, None
        with naming(self._directory):
            saving.result()
        if is_writer():
            kept = {name: entry for name, entry in self._recorded().items() if (self._directory / name).is_dir()}
            kept[str(step)] = {"best": best_step, "files": sizes_of(self._directory / str(step))}
            write_json(self._directory / FILES_FILE, kept)

    def _restore(self, step: int, abstract: dict) -> tuple[dict, dict]:
        """(progress, state); DamagedCheckpoint if it cannot be read, CheckpointError if it is of another model."""
        path = self._directory / str(step)
        remedy = f"delete {path} to go on from the one before"
        with reading(path, remedy):
            found = ocp.checkpointables_metadata(path)
            stored, progress = found.metadata["params"], found.custom_metadata
            check_listed(stored)
            if not progress:  # what orbax makes of a lost file
                raise ValueError("it does not say how far the training was")
        check_same_tree(path, stored, abstract["params"])
        rest = {name: value for name, value in abstract.items() if name != "params"}
        with reading(path, remedy):
            loaded = ocp.load_checkpointables(path, {"params": abstract["params"], "rest": rest})
        return progress, {"params": loaded["params"], **loaded["rest"]}

    def restore_params(self, step: int, abstract):
        """The parameters alone of the state saved at `step`; waits for a save under way, which may be that one."""
        self._finish()
        path = self._directory / str(step)
        with reading(path, f"delete {self._directory.parent} and train again"):
            return ocp.load_checkpointables(path, {"params": abstract})["params"]

    def close(self) -> None:
        """Wait for a save under way and release the checkpointer."""
        try:
            self._finish()
        finally:
            if "_checkpointer" in vars(self):
                self._checkpointer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
