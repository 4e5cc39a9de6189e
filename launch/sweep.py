"""Trains and measures several experiments, here or as jobs of a cluster, for one table.

python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=DIR [--borrow=RUN]

Each experiment is a run of launch.pipeline in DIR/NAME_SEED without its evaluation.
Stages that another experiment, or RUN, made of the same data and settings are linked.
The same command continues. Writes DIR/sweep.json, sweep.md and sweep.png. Jobs at the
same time cannot link from each other: --borrow a run, or submit one (--only) first.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.sweeps import backends, results
from atspeed_jax.sweeps.foresight import Foresight
from atspeed_jax.sweeps.trials import chosen
from atspeed_jax.utils.distributed import check_same, is_writer
from launch.given_sweep import given_backend, given_trials
from launch.sigterm import stages_kept
from launch.stage import FLAGS, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_multi_string("borrow", [], "Directory of a run whose finished stages may be linked.")
    flags.DEFINE_enum("backend", backends.LOCAL, [backends.LOCAL, *backends.CLUSTERS], "Where the experiments run.")
    flags.DEFINE_list("only", [], "Experiments such as coverage_0: these alone, without tables (as a job does).")
    flags.DEFINE_list("resubmit", [], "Experiments whose earlier jobs are gone.")
    flags.DEFINE_bool("dry_run", False, "Print what would run or be submitted, stage by stage, and do nothing.")


def sweep() -> None:
    workdir, data_dir = Path(FLAGS.workdir), FLAGS.data_dir
    settings, made = given_trials()
    backend, here = given_backend(FLAGS.backend), FLAGS.backend == backends.LOCAL
    picked = chosen(made, FLAGS.only) if FLAGS.only else made
    again = [trial.name for trial in chosen(made, FLAGS.resubmit)]
    others = results.others(workdir, made, results.lenders(FLAGS.borrow, check=here))  # a cluster's may not be mounted
    if FLAGS.dry_run:
        backends.preview(backend, workdir, picked, again, Foresight(workdir, data_dir, settings, others, waits=here))
        return
    check_same(fingerprint(settings, *picked), "config or --only")
    results.begin(workdir, picked)
    if not here:
        todo = results.not_done(workdir, settings, picked)
        backends.submit(backend, workdir, todo, again, borrows=bool(FLAGS.borrow))
        results.collect(workdir, settings, made)
        return
    if not FLAGS.only:
        backends.check_no_jobs(workdir, results.not_done(workdir, settings, made), again)
    for trial in picked:
        results.run_trial(workdir, trial, settings, data_dir, others[trial.name])
    if not FLAGS.only and is_writer():
        results.collect(workdir, settings, made)


if __name__ == "__main__":
    start(sweep, define_flags, required=("config", "workdir"), several=True, kept=stages_kept)
