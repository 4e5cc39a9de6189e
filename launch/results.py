"""Writes the tables of a sweep, as far as it is done, and runs nothing.

python -m launch.results --config=configs/sweeps/objectives.py --workdir=DIR

Writes DIR/sweep.json, DIR/sweep.md and DIR/sweep.png, as launch.sweep does at its end.
(The tables of a single run are in its report.md.)
"""

from pathlib import Path

from atspeed_jax.runs.record import WorkdirError
from atspeed_jax.sweeps.results import collect
from launch.given_sweep import given_trials
from launch.stage import FLAGS, start


def results() -> None:
    workdir = Path(FLAGS.workdir)
    settings, made = given_trials()
    if not workdir.is_dir():
        raise WorkdirError(f"--workdir={workdir}: there is no such directory; expected the directory of a sweep")
    collect(workdir, settings, made)


if __name__ == "__main__":
    start(results, required=("config", "workdir"))
