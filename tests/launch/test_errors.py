import logging

import jax
import pytest

from atspeed_jax.training.train import TrainingDiverged
from launch.errors import NotOfOrbax, one_line


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/disk/x"),
        RuntimeError("write() failed: No space left on device; writing /disk/x"),
        ValueError('RESOURCE_EXHAUSTED: Failed writing: "/disk/x": No space left on device'),
    ],
)
def test_a_full_disk_is_one_line_with_the_remedy(error, wrapped):
    outer = ValueError("workdir cannot be written; use another directory")
    outer.__cause__ = error
    told = one_line(outer if wrapped else error)
    assert told.startswith("error: the disk is full (")
    assert "/disk/x" in told
    assert "): free space there, then run the same command again; what is finished stays" in told


@pytest.mark.parametrize("error", [ValueError("a\n  b"), TrainingDiverged("a b"), PermissionError("a b")])
def test_a_mistake_or_the_world_is_one_line(error):
    assert one_line(error) == "error: a b"


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("a"), jax.errors.JaxRuntimeError("OOM")])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    assert one_line(error) is None


@pytest.mark.parametrize(("path", "kept"), [("/x/orbax/future.py", False), ("/x/grain/read.py", True)])
def test_what_orbax_raises_as_well_is_not_logged(path, kept):
    record = logging.LogRecord("absl", logging.ERROR, path, 1, "raised an exception", (), None)
    assert NotOfOrbax().filter(record) is kept
