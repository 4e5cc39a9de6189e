"""What every main shares: flags -> config -> frozen dataclasses -> one call."""

from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from atspeed_jax.experiment import ExperimentConfig
from atspeed_jax.pipeline import Run
from launch.config import check_workdir, load

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, such as configs/tiny.py; --config.x.y=... overrides."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of this run: new, empty, or one that this program made.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Interactions in the AtSpeed text layout, for configs that read them."
)


def open_run() -> Run:
    """The run that the flags describe.

    Raises ConfigError, WorkdirError before anything is done.
    """
    config = load(_CONFIG.value, ExperimentConfig)
    for difference in check_workdir(_WORKDIR.value, config):
        print(f"note: differs from the config this workdir was made with: {difference}")
    return Run(config, Path(_WORKDIR.value), Path(_DATA_DIR.value) if _DATA_DIR.value else None)


def main(call) -> None:
    """Runs `call(run)` with the flags parsed; a user's mistake ends in one clear line, not a traceback."""

    def body(_):
        try:
            call(open_run())
        except ValueError as error:  # every error of ours for bad input is one
            raise SystemExit(f"error: {error}") from error

    flags.mark_flags_as_required(["config", "workdir"])
    app.run(body)
