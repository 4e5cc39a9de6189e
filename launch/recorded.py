"""A run's own record as a config file, for --config.x.y=... where --workdir is given without --config."""

from pathlib import Path

from ml_collections import ConfigDict

from atspeed_jax.runs.record import recorded
from launch.config import to_fields


def get_config(workdir: str) -> ConfigDict:
    return to_fields(recorded(Path(workdir)))
