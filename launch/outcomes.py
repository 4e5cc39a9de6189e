"""What the trials of a sweep find out: a file per trial, and one table of them all."""

import json
from collections.abc import Sequence
from pathlib import Path

from atspeed_jax.evaluation.modes import ModeTable
from atspeed_jax.reporting.tables import markdown, plain
from atspeed_jax.runs.assets import fingerprint
from atspeed_jax.runs.checks import check_modes
from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.record import record_config
from atspeed_jax.sweeps.plot import sweep_plot
from atspeed_jax.sweeps.table import pairs_table, sweep_row, sweep_table
from atspeed_jax.utils import files
from atspeed_jax.utils.distributed import check_shared
from atspeed_jax.utils.program_memory import forget_programs
from launch.trials import SweepConfig, Trial

ROWS_FILE = "rows.json"  # in a trial's directory; written last: who has it is done
STAGES = ("data", "target", "teacher", "draft_sft", "draft")


def lenders(directories: Sequence[str]) -> list[Path]:
    """The directories of --borrow. Raises ConfigError for one that has nothing to lend, since a slip in its name would
    cost a training."""
    for directory in map(Path, directories):
        if not (directory / "data").is_dir():
            raise ConfigError(
                f"--borrow={directory}: there is no {directory.absolute()}/data; expected the workdir of a run that "
                "has done its data stage"
            )
    return [Path(directory) for directory in directories]


def others(workdir: Path, made: Sequence[Trial], lent: Sequence[Path]) -> dict[str, list[Path]]:
    """Name of each trial -> directories whose finished stages it may link: those of the other trials, and `lent`."""
    return {trial.name: [workdir / other.name for other in made if other is not trial] + [*lent] for trial in made}


def begin(workdir: Path, picked: Sequence[Trial]) -> None:
    """Makes the directory of each trial, with the record of its config."""
    for trial in picked:
        record_config(workdir / trial.name, trial.config)
    check_shared(workdir)


def find(workdir: Path, trial: Trial, settings: SweepConfig, data_dir: str | None, others: Sequence[Path]) -> None:
    """Runs a trial in its directory, and writes down what it measured. others: where finished stages may be linked."""
    run = Run(trial.config, workdir / trial.name, Path(data_dir) if data_dir else None)
    rows = rows_of(trial, settings, run, others)
    files.write_json(run.workdir / ROWS_FILE, {"fingerprint": _asked(trial, settings), "rows": rows})
    forget_programs()  # if they are too many


def rows_of(trial: Trial, settings: SweepConfig, run: Run, others: Sequence[Path]) -> list[dict]:
    """Trains the run's draft, and what comes before it, and measures every way to decode."""
    for stage in STAGES:
        print(f"[{trial.name}] {stage}", flush=True)
        run.borrow(stage, others)
        getattr(run, stage)()
        if stage == "data":
            check_modes(settings.measure, run.dataset)  # now, not when everything is trained
    evaluation = run.measurements()
    found = [row for measure in settings.measure for row in ModeTable(evaluation, measure).rows()]
    about = trial.run, trial.config.align.objective, trial.seed, evaluation.target_fingerprint
    return [sweep_row(*about, row) for row in found if row["method"] == "speculative"]


def done_rows(directory: Path, trial: Trial, settings: SweepConfig) -> list[dict] | None:
    """What a trial measured; None if it is not done, or not with these settings."""
    try:
        found = json.loads((directory / ROWS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found["rows"] if found["fingerprint"] == _asked(trial, settings) else None


def _asked(trial: Trial, settings: SweepConfig) -> str:
    return fingerprint(trial.run, trial.seed, trial.config, settings.measure)


def not_done(workdir: Path, settings: SweepConfig, made: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in made if done_rows(workdir / trial.name, trial, settings) is None]


def collect(workdir: Path, settings: SweepConfig, made: Sequence[Trial]) -> None:
    """Writes and prints the tables of the trials that are done, and says which are missing."""
    found = {trial.name: done_rows(workdir / trial.name, trial, settings) for trial in made}
    rows = [row for own in found.values() for row in own or ()]
    missing = [name for name, own in found.items() if own is None]
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
        parts = [*notes, *map(markdown, tables), "![target calls](sweep.png)\n"]
        files.write_text(workdir / "sweep.md", "\n".join(parts))
        print("\n".join(map(plain, tables)))
    print("".join(notes), end="", flush=True)
