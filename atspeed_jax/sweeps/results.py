"""What the trials of a sweep measure: a file per trial, and one table of them all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from atspeed_jax.evaluation.modes import ModeTable
from atspeed_jax.reporting.tables import as_markdown, as_text
from atspeed_jax.runs.checks import check_modes
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.record import record_config
from atspeed_jax.sweeps.plot import sweep_plot
from atspeed_jax.sweeps.table import ROW_FIELDS, pairs_table, sweep_row, sweep_table
from atspeed_jax.sweeps.trials import SweepConfig, Trial
from atspeed_jax.utils import files
from atspeed_jax.utils.distributed import check_shared
from atspeed_jax.utils.program_memory import forget_programs

ROWS_FILE = "rows.json"  # in a trial's directory; written last: a trial that has it is done
TRIAL_STAGES = ("data", "target", "teacher", "draft_sft", "draft")
REMEDY = "delete it, and the next launch.sweep of the checkout measures that trial again"


def lenders(directories: Sequence[str], *, check: bool) -> list[Path]:
    """Returns the directories of --borrow as paths.

    Args:
      directories: of runs.
      check: whether each must have a data stage. A slip in its name would cost a
        training.

    Raises:
      ConfigError: for a directory that has no data stage.
    """
    for directory in map(Path, directories):
        if check and not (directory / "data").is_dir():
            raise ConfigError(
                f"--borrow={directory}: there is no {directory.absolute()}/data; expected the workdir of a run that "
                "has done its data stage"
            )
    return [Path(directory) for directory in directories]


def others(workdir: Path, made: Sequence[Trial], lent: Sequence[Path]) -> dict[str, list[Path]]:
    """Returns, by name of a trial, the directories whose finished stages it may link.

    Args:
      workdir: directory of the sweep.
      made: all its trials. A trial may link from every other one.
      lent: further directories, of --borrow.
    """
    return {trial.name: [workdir / other.name for other in made if other is not trial] + [*lent] for trial in made}


def begin(workdir: Path, picked: Sequence[Trial]) -> None:
    """Makes the directory of each trial, with the record of its config."""
    for trial in picked:
        record_config(workdir / trial.name, trial.config)
    check_shared(workdir)


def run_trial(workdir: Path, trial: Trial, settings: SweepConfig, data_dir: str | None, others: Sequence[Path]) -> None:
    """Trains a trial in its directory, measures it, and writes its rows.

    Args:
      workdir: directory of the sweep.
      trial: what is trained.
      settings: of the sweep; they say how the trial is measured.
      data_dir: data directory, None for a config that makes its own data.
      others: directories whose finished stages may be linked.
    """
    run = Run(trial.config, workdir / trial.name, Path(data_dir) if data_dir else None)
    rows = rows_of(trial, settings, run, others)
    files.write_json(run.workdir / ROWS_FILE, {"fingerprint": _asked(trial, settings), "rows": rows})
    forget_programs()  # if they are too many


def rows_of(trial: Trial, settings: SweepConfig, run: Run, others: Sequence[Path]) -> list[dict]:
    """Makes every stage up to the run's draft, and measures every way to decode.

    Returns:
      A row of sweep.json per setting of speculative search (`sweep_row`).
    """
    for stage in TRIAL_STAGES:
        print(f"[{trial.name}] {stage}", flush=True)
        run.borrow(stage, others)
        run.make(stage)
        if stage == "data":
            check_modes(settings.measure, run.dataset)  # now, not when everything is trained
    evaluation = run.measurements()
    found = [row for measure in settings.measure for row in ModeTable(evaluation, measure).rows()]
    objective, target = trial.config.align.objective, evaluation.target_fingerprint
    return [sweep_row(trial.run, objective, trial.seed, target, row) for row in found if row["method"] == "speculative"]


def done_rows(directory: Path, trial: Trial, settings: SweepConfig) -> list[dict] | None:
    """Returns what a trial measured, None if it is not done or not with these settings.

    Raises:
      ValueError: naming the file, if it is damaged.
    """
    path = directory / ROWS_FILE
    try:
        found = files.read_json(path, REMEDY, {"fingerprint": str, "rows": list})
    except FileNotFoundError:
        return None
    if found["fingerprint"] != _asked(trial, settings):
        return None
    for row in found["rows"]:
        if not isinstance(row, Mapping) or not row.keys() >= set(ROW_FIELDS):
            raise ValueError(f"{path} is damaged (expected rows with {', '.join(ROW_FIELDS)}); {REMEDY}")
    return found["rows"]


def _asked(trial: Trial, settings: SweepConfig) -> str:
    # With the names of the fields: rows of an older version, with fewer of them, are not those that are asked for.
    return fingerprint(trial.run, trial.seed, trial.config, settings.measure, ROW_FIELDS)


def not_done(workdir: Path, settings: SweepConfig, made: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that have no rows, or rows of other settings."""
    return [trial for trial in made if done_rows(workdir / trial.name, trial, settings) is None]


def collect(workdir: Path, settings: SweepConfig, made: Sequence[Trial]) -> None:
    """Writes and prints the tables of the trials that are done, and names the others.

    Writes sweep.json, sweep.md and sweep.png below `workdir`, unless no trial is done.
    """
    found = {trial.name: done_rows(workdir / trial.name, trial, settings) for trial in made}
    rows = [row for measured in found.values() for row in measured or ()]
    missing = [name for name, measured in found.items() if measured is None]
    notes = [f"Not done: {', '.join(missing)}.\n"] if missing else []
    for seed in sorted({row["seed"] for row in rows}):
        targets = {row["target_fingerprint"] for row in rows if row["seed"] == seed}
        if len(targets) > 1:
            notes.append(f"Seed {seed} has {len(targets)} targets: compare calls only for one and the same.\n")
    if rows:
        evaluate = made[0].config.evaluate
        how = {"samples": evaluate.bootstrap_samples, "seed": evaluate.seed}
        tables = sweep_table(rows), pairs_table(rows, settings.reference, **how)
        files.write_json(workdir / "sweep.json", rows)
        files.write_bytes(workdir / "sweep.png", sweep_plot(rows))
        parts = [*notes, *map(as_markdown, tables), "![target calls](sweep.png)\n"]
        files.write_text(workdir / "sweep.md", "\n".join(parts))
        print("\n".join(map(as_text, tables)))
    print("".join(notes), end="", flush=True)
