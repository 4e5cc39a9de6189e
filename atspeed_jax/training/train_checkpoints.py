"""Checkpoints of a training, from which it resumes. Orbax, no pickle.

STEP/            the state after a step, by orbax
files.json       per state: sizes of its files, step of the best parameters so far
damaged-STEP/    a state that was found damaged and passed over
"""

import functools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from atspeed_jax.training.checkpoint import CheckpointError, DamagedCheckpoint, check_listed, check_same_tree, reading
from atspeed_jax.utils.distributed import agreed, barrier, first_says, is_writer
from atspeed_jax.utils.files import first_damaged, naming, read_json, sizes_of, write_json

FILES_FILE = "files.json"
_STEP = re.compile("[0-9]{1,18}")
_NONE, _DAMAGED = -1, -2  # instead of a step: no state at all, no undamaged state


class _LatestAndBest:
    """Preservation policy: keeps the newest checkpoint and the best one."""

    def __init__(self, best_step: int | None):
        self.best_step = best_step

    def should_preserve(self, checkpoints, *, context):
        newest = max((checkpoint.step for checkpoint in checkpoints), default=None)
        return [checkpoint.step in (newest, self.best_step) for checkpoint in checkpoints]


def _is_recorded(name: str, entry) -> bool:
    """Whether an entry of files.json is one that `TrainCheckpoints` writes."""
    if not _STEP.fullmatch(name) or not isinstance(entry, dict) or not isinstance(entry.get("files"), dict):
        return False
    best = entry.get("best", -1)
    known = best is None or (type(best) is int and 0 <= best <= int(name))  # never a later step
    return known and all(type(size) is int for size in entry["files"].values())


class TrainCheckpoints:
    """Training states by step, saved in the background. Keeps the newest and the best.

    A save gets its final name when it is complete, and older states are deleted after
    that. So a kill at any moment leaves the newest complete state and the best state it
    names.
    """

    def __init__(self, directory):
        self._directory = Path(directory).absolute()
        self._policy = _LatestAndBest(None)
        self._saving: tuple[int, int | None, Any] | None = None

    @functools.cached_property
    def _checkpointer(self):
        # Made at the first save: orbax remembers the steps that it finds, damaged ones
        # too.
        return ocp.training.Checkpointer(
            str(self._directory), preservation_policy=self._policy, cleanup_tmp_directories=True
        )

    def steps(self) -> list[int]:
        """The steps that have a state, damaged or not, ascending."""
        entries = self._directory.iterdir() if self._directory.is_dir() else ()
        found = {path.name for path in entries if _STEP.fullmatch(path.name)}
        return sorted({int(name) for name in found | set(self._recorded())})

    def resume(self, abstract: dict, say: Callable[[str], None]) -> tuple[int, dict, dict] | None:
        """Restores the newest undamaged state. Damaged later states are set aside.

        Args:
          abstract: structure and shardings of the state.
          say: gets a sentence for every damaged state.

        Returns:
          (step, progress, state); None if no state was ever saved.

        Raises:
          CheckpointError: every state is damaged, the parameters are those of another
            model, or a file has the place of the directory.
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
                if jax.process_count() > 1:  # other processes may have read this state
                    raise
                damaged[step] = error.damage
                continue
            self._set_aside(damaged, step, say)
            return step, progress, state
        if step == _NONE:
            return None
        found = "; ".join(damaged.values()) or "see the message of process 0"
        raise CheckpointError(
            f"every checkpoint in {self._directory} is damaged ({found}); delete {self._directory.parent} to train "
            "from the start"
        )

    def _newest(self, damaged: dict[int, str]) -> int:
        """The newest undamaged step; adds later, damaged steps to `damaged`."""
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
        """What is wrong with a state, or with the best state it names, or None."""
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
            found = {}  # a damaged state is then found when it is read
        return {name: entry for name, entry in found.items() if _is_recorded(name, entry)}

    def _set_aside(self, damaged: dict[int, str], step: int, say: Callable[[str], None]) -> None:
        """Renames damaged states: later states will have the same steps."""
        for number, damage in sorted(damaged.items()):
            say(f"the checkpoint of step {number} is damaged ({damage}); going on from step {step}")
            path, aside = self._directory / str(number), self._directory / f"damaged-{number}"
            if is_writer() and path.exists():
                shutil.rmtree(aside, ignore_errors=True)
                path.replace(aside)
        barrier("damaged checkpoints are set aside")

    def save(self, step: int, state: dict, progress: dict, best_step: int | None) -> None:
        """Starts saving a state; waits only until the save before it has finished.

        Args:
          state: {"params": ..., ...}, a tree of arrays.
          progress: a JSON object, not empty.
          best_step: the checkpoint to keep beside the newest; may be `step`.
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
        """Waits for a save under way and records its files."""
        if self._saving is None:
            return
        (step, best_step, saving), self._saving = self._saving, None
        with naming(self._directory):
            saving.result()
        if is_writer():
            kept = {name: entry for name, entry in self._recorded().items() if (self._directory / name).is_dir()}
            kept[str(step)] = {"best": best_step, "files": sizes_of(self._directory / str(step))}
            write_json(self._directory / FILES_FILE, kept)

    def _restore(self, step: int, abstract: dict) -> tuple[Any, dict]:
        """Loads (progress, state); CheckpointError for damage or another model."""
        path = self._directory / str(step)
        remedy = f"delete {path} to go on from the one before"
        with reading(path, remedy):
            found = ocp.checkpointables_metadata(str(path))
            stored, progress = found.metadata["params"], found.custom_metadata
            check_listed(stored)
            if not progress:  # orbax gives this for a lost file
                raise ValueError("its progress is lost")
        check_same_tree(path, stored, abstract["params"])
        rest = {name: value for name, value in abstract.items() if name != "params"}
        with reading(path, remedy):
            loaded = ocp.load_checkpointables(str(path), {"params": abstract["params"], "rest": rest})
        return progress, {"params": loaded["params"], **loaded["rest"]}

    def restore_params(self, step: int, abstract):
        """Loads the parameters of a state, once a save under way has ended."""
        self._finish()
        path = self._directory / str(step)
        with reading(path, f"delete {self._directory.parent} and train again"):
            return ocp.load_checkpointables(str(path), {"params": abstract})["params"]

    def close(self) -> None:
        """Waits for a save under way and releases the checkpointer."""
        try:
            self._finish()
        finally:
            if "_checkpointer" in vars(self):
                self._checkpointer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
