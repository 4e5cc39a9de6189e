"""Several experiments, here or each as a job of a cluster, and one table of them all.

    python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=DIR [--data_dir=DIR] [--borrow=RUN]

Each is a run of launch.pipeline in DIR/NAME_SEED, but for its evaluation; stages that another one, or the run RUN, made
of the same data and settings are linked. Resumable. Writes DIR/sweep.json, DIR/sweep.md and DIR/sweep.png.

--backend=slurm|xpk|tpu_vm submits those that are not done as jobs (launch/pods, with its variables) and shows what is
done so far. Jobs at work at the same time cannot link from each other: --borrow a run, or submit one (--only) first.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.runs.assets import fingerprint
from atspeed_jax.runs.record import record_config
from atspeed_jax.utils.distributed import check_same, check_shared, is_writer
from launch import backends, outcomes
from launch.foresight import Foresight
from launch.stage import given_fields, start  # and its flags
from launch.trials import chosen, trials

_BORROW = flags.DEFINE_multi_string("borrow", [], "Directories of runs whose finished stages may be used.")
_BACKEND = flags.DEFINE_enum("backend", "local", ["local", *backends.CLUSTERS], "Where the experiments run.")
_ONLY = flags.DEFINE_list("only", [], "Names such as coverage_0: no others, and no tables (what a job does).")
_RESUBMIT = flags.DEFINE_list("resubmit", [], "Names of experiments whose earlier jobs are gone.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would run or be submitted, stage by stage; do nothing.")


def sweep() -> None:
    workdir, data_dir = Path(flags.FLAGS["workdir"].value), flags.FLAGS["data_dir"].value
    (settings, made), here = trials(given_fields()), _BACKEND.value == "local"
    picked = chosen(made, _ONLY.value) if _ONLY.value else made
    again = [trial.name for trial in chosen(made, _RESUBMIT.value)]
    todo = picked if here else outcomes.not_done(workdir, settings, picked)
    lent = outcomes.lenders(_BORROW.value) if here else list(map(Path, _BORROW.value))  # a cluster's may not be mounted
    others = {trial.name: [workdir / other.name for other in made if other is not trial] + lent for trial in made}
    if _DRY_RUN.value:
        stages = Foresight(workdir, data_dir, settings, others, waits=here)
        return backends.preview(_BACKEND.value, workdir, picked, again, stages)
    check_same(fingerprint(settings, *picked), "config or --only")
    for trial in picked:
        record_config(workdir / trial.name, trial.config)
    check_shared(workdir)
    if not here:
        if len(todo) > 1 and not _BORROW.value:
            print("note: a job that finds no finished target trains its own; --borrow=RUN links that of RUN")
        backends.submit(_BACKEND.value, workdir, todo, again)
        return outcomes.collect(workdir, settings, made)
    if not _ONLY.value:
        backends.check_no_jobs(workdir, outcomes.not_done(workdir, settings, made), again)
    for trial in picked:
        outcomes.find(workdir, trial, settings, data_dir, others[trial.name])
    if not _ONLY.value and is_writer():
        outcomes.collect(workdir, settings, made)


if __name__ == "__main__":
    start(sweep, required=("config", "workdir"), several=True)
