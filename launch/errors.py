"""What a main says when it fails."""

import logging

import jax

from atspeed_jax.training.train import TrainingDiverged
from atspeed_jax.utils.files import full_disk


def one_line(error: Exception) -> str | None:
    """Returns an error in one line, None for a fault of the program.

    Such a fault needs its traceback.

    Our errors for bad input are ValueErrors. A full disk arrives as any error that the
    library which wrote makes of it.
    """
    text = " ".join(str(error).split())
    if cause := full_disk(error):
        return (
            f"error: the disk is full ({cause[:300]}): free space there, then run the same command again; what is "
            "finished stays, and the rest is continued or made again"
        )
    if isinstance(error, jax.errors.JaxRuntimeError):
        if jax.process_count() == 1:
            return None
        return (
            f"error: process {jax.process_index()} lost the others ({text[:300]}); one of them ended, see its "
            "last lines; then start all of them again, which continues from the last checkpoint"
        )
    return f"error: {text}" if isinstance(error, ValueError | OSError | TrainingDiverged) else None


class NotOfOrbax(logging.Filter):
    """Leaves out the log of orbax.

    Orbax logs every file that it touches, and every error that it raises with a
    traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "/orbax/" not in record.pathname
