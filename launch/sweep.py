"""Several experiments one after another on this machine, and one table of them all.

    python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=DIR [--data_dir=DIR] [--borrow=RUN]

Each is a run of launch.pipeline in DIR/NAME_SEED, but for its evaluation; stages that an earlier one, or the run RUN,
made of the same data and settings are linked. Resumable. Writes DIR/sweep.json, DIR/sweep.md and DIR/sweep.png.
"""

from pathlib import Path

from absl import flags

from atspeed_jax import files
from atspeed_jax.evaluation.modes import ModeTable
from atspeed_jax.evaluation.plots import sweep_plot
from atspeed_jax.evaluation.sweep_table import pairs_table, sweep_row, sweep_table
from atspeed_jax.evaluation.tables import markdown, plain
from atspeed_jax.pipeline import Run
from atspeed_jax.programs import forget_programs
from launch.config import check_workdir
from launch.stage import start  # and its flags
from launch.trials import SweepConfig, Trial, trials

_BORROW = flags.DEFINE_multi_string("borrow", [], "Directories of runs whose finished stages may be used.")


def rows_of(trial: Trial, settings: SweepConfig, run: Run, others: list[Path]) -> list[dict]:
    """Trains the run's draft, and what comes before it, and measures every way to decode."""
    for stage in ("data", "target", "teacher", "draft_sft", "draft"):
        print(f"[{trial.name}] {stage}", flush=True)
        run.borrow(stage, others)
        getattr(run, stage)()
    evaluation = run.measurements()
    found = [row for measure in settings.measure for row in ModeTable(evaluation, measure).rows()]
    about = trial.run, trial.config.align.objective, trial.seed, evaluation.target_fingerprint
    return [sweep_row(*about, row) for row in found if row["method"] == "speculative"]


def sweep() -> None:
    workdir, data_dir = Path(flags.FLAGS["workdir"].value), flags.FLAGS["data_dir"].value
    settings, made = trials(flags.FLAGS["config"].value)
    for trial in made:
        check_workdir(workdir / trial.name, trial.config)
    others, rows = [Path(name) for name in _BORROW.value], []
    for trial in made:
        run = Run(trial.config, workdir / trial.name, Path(data_dir) if data_dir else None)
        rows += rows_of(trial, settings, run, others)
        others.insert(0, run.workdir)
        forget_programs()  # if they are too many
    evaluate = made[0].config.evaluate
    how = {"samples": evaluate.bootstrap_samples, "seed": evaluate.seed}
    tables = sweep_table(rows), pairs_table(rows, settings.reference, **how)
    files.write_json(workdir / "sweep.json", rows)
    files.write_bytes(workdir / "sweep.png", sweep_plot(rows))
    files.write_text(workdir / "sweep.md", "\n".join([*map(markdown, tables), "![target calls](sweep.png)\n"]))
    print("\n".join(map(plain, tables)))


if __name__ == "__main__":
    start(sweep, required=("config", "workdir"))
