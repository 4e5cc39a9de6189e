"""Links finished stages of other runs into a run that would make the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atspeed_jax.runs.fingerprints import recorded_fingerprint
from atspeed_jax.utils.distributed import agreed, barrier, is_writer

BORROWED = ("data", "target", "teacher", "draft_sft")  # a draft is always trained in its run


def borrow(workdir: Path, stage: str, others: Sequence[Path], fingerprint: Callable[[str], str]) -> None:
    """Links the complete output of a stage in another working directory into this one.

    Nothing happens if this directory has the stage, if the stage is not in BORROWED, or
    if no other directory has output made of the same data with the same settings.

    Args:
      workdir: the directory that lacks the stage.
      others: working directories of other runs; the first that fits is linked.
      fingerprint: gives the fingerprint that the output of a stage must have. Stored
        data have none: whoever loads the data checks them.
    """
    link = workdir / stage
    # A broken link blocks the place too: the stage will say what it cannot read.
    if stage not in BORROWED or agreed(lambda: link.exists() or link.is_symlink()):
        return
    # All processes ask for the fingerprint, since that may load the target. The writer
    # alone looks for output: a stage that another job completes meanwhile would be
    # complete for some processes only.
    expected = None if stage == "data" else fingerprint(stage)
    if is_writer():
        for other in (Path(directory).absolute() / stage for directory in others):
            if other.exists() and (stage == "data" or recorded_fingerprint(other) == expected):
                link.symlink_to(other, target_is_directory=True)
                break
    barrier(f"borrow {stage}")
