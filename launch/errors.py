"""What a user is told when a main fails."""

import logging

import jax

from atspeed_jax.training.train import TrainingDiverged
from atspeed_jax.utils.files import full_disk


def one_line(error: Exception) -> str | None:
    """An error of the user's, or of the world, in one line; None for a fault of the program, which needs its traceback.

    Every error of ours for bad input is a ValueError. A full disk comes as whatever the library makes of it that wrote.
    """
    text = " ".join(str(error).split())
    if cause := full_disk(error):
        return (
            f"error: the disk is full ({cause[:300]}): free space there, then run the same command again; what is "
            "finished stays, and the rest is made again or gone on with"
        )
    if isinstance(error, jax.errors.JaxRuntimeError):
        if jax.process_count() == 1:
            return None
        return (
            f"error: process {jax.process_index()} lost the others ({text[:300]}); one of them ended, see what it "
            "said; then start all of them again, which goes on from the last checkpoint"
        )
    return f"error: {text}" if isinstance(error, ValueError | OSError | TrainingDiverged) else None


class NotOfOrbax(logging.Filter):
    """Leaves out what orbax logs: every file that it touches, and with a traceback each error that it then raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "/orbax/" not in record.pathname
