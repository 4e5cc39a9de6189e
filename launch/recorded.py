"""The record of a run as a config file.

It serves --config.x.y=... where --workdir is given without --config.
"""

from pathlib import Path

from ml_collections import ConfigDict

from atspeed_jax.runs.record import recorded
from launch.config import to_fields


def get_config(workdir: str) -> ConfigDict:
    """Returns the config that a run was begun with."""
    return to_fields(recorded(Path(workdir)))
