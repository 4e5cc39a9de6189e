"""The experiments that the command line of a sweep describes, and where they run."""

import sys
from collections.abc import MutableMapping
from pathlib import Path

from atspeed_jax.sweeps import trials
from atspeed_jax.sweeps.backends import Backend
from atspeed_jax.sweeps.trials import SweepConfig, Trial
from launch.config import plain
from launch.overrides import run_config
from launch.stage import given_fields

PODS = Path(__file__).parent / "pods"


def given_trials() -> tuple[SweepConfig, list[Trial]]:
    """Returns the settings and the experiments of the sweep of --config.

    Raises:
      ConfigError: for a field that the sweep or the base of its runs does not have.
    """
    return trials.trials(plain(given_fields()), base_fields)


def base_fields(file: str) -> MutableMapping:
    """Returns the fields of a config file as nested dicts.

    Raises:
      ConfigError: naming the file and the line, if the file does not run.
    """
    return plain(run_config(file))


def given_backend(name: str) -> Backend:
    """Returns the backend of a name, whose jobs repeat this command line."""
    return Backend(name, PODS, tuple(sys.argv[1:]))
