"""What launch.sweep would do with each stage of a trial."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.runs.borrow import BORROWED
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.fingerprints import fingerprint, recorded_fingerprint
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.sweeps.results import TRIAL_STAGES, done_rows
from atspeed_jax.sweeps.trials import SweepConfig, Trial


class Foresight:
    """Says what the stages of trials would do.

    Trials are to be asked in the order in which they would run.

    Args:
      workdir: directory of the sweep.
      data_dir: data directory, None for a config that makes its own data.
      settings: of the sweep.
      others: name of a trial -> directories whose finished stages it may link.
      waits: whether a trial sees what the trials before it make, as in one process.
    """

    def __init__(
        self,
        workdir: Path,
        data_dir: str | None,
        settings: SweepConfig,
        others: Mapping[str, Sequence[Path]],
        *,
        waits: bool,
    ):
        self.workdir, self.data_dir, self.settings = workdir, Path(data_dir) if data_dir else None, settings
        self.others, self.waits = others, waits
        self.made: dict[str, Path] = {}  # what a stage is made of -> where an earlier trial would make it

    def done(self, trial: Trial) -> bool:
        """Whether all that the sweep wants of the trial is measured."""
        return done_rows(self.workdir / trial.name, trial, self.settings) is not None

    def stages(self, trial: Trial) -> list[str]:
        """Returns what each stage would do, such as "target: linked from RUN".

        Nothing is written: stages that exist are linked into a temporary directory,
        whose run answers as the trial would.

        Args:
          trial: one that is not done.

        Raises:
          ValueError: for settings that the trial would be refused for.
        """
        directory, others = self.workdir / trial.name, self.others[trial.name]
        with tempfile.TemporaryDirectory() as temporary:
            view = Run(trial.config, Path(temporary) / "view", self.data_dir)
            view.workdir.mkdir()
            lines = [f"{stage}: {self._stage(stage, trial.config, view, directory, others)}" for stage in TRIAL_STAGES]
        return [*lines, "measurements: run"]

    def _stage(self, stage: str, config: ExperimentConfig, view: Run, directory: Path, others: Sequence[Path]) -> str:
        if stage == "draft_sft" and config.train_draft is None:
            return "nothing to train"
        known = self._known(stage, view)
        if _complete(directory / stage):
            if known and stage != "data" and recorded_fingerprint(directory / stage) != view.stage_fingerprint(stage):
                return f"REFUSED, {directory / stage} was made with other settings"
            (view.workdir / stage).symlink_to((directory / stage).absolute(), target_is_directory=True)
            return "complete"
        if (directory / stage).exists():
            return "runs, from where it was stopped"
        if stage in BORROWED and known:
            view.borrow(stage, others)
            if (view.workdir / stage).exists():
                return f"linked from {(view.workdir / stage).readlink().parent}"
        if stage in BORROWED and self.waits:
            earlier = self.made.setdefault(fingerprint(stage, *_made_of(stage, config)), directory)
            if earlier != directory:
                return f"linked from {earlier}, which makes it first"
        return "runs"

    @staticmethod
    def _known(stage: str, view: Run) -> bool:
        """Whether all that the stage's fingerprint depends on exists."""
        sft = ("data", "target") if isinstance(view.config.draft, TargetLayersConfig) else ("data",)
        needed = {"data": (), "target": ("data",), "teacher": ("data", "target"), "draft_sft": sft}
        return all((view.workdir / name).exists() for name in needed.get(stage, ("data", "target", "teacher")))


def _complete(directory: Path) -> bool:
    if directory.name == "data":  # is renamed to this name when it is whole
        return directory.exists()
    return directory.exists() and recorded_fingerprint(directory) is not None


def _made_of(stage: str, config: ExperimentConfig) -> tuple:
    """Returns the settings that the output of a stage depends on."""
    target = config.data, config.target, config.train_target
    begins = target if isinstance(config.draft, TargetLayersConfig) else (config.data,)
    return {
        "data": (config.data,),
        "target": target,
        "teacher": (*target, config.teacher, config.decode.score_norm),
        "draft_sft": (*begins, config.draft, config.train_draft),
    }[stage]
