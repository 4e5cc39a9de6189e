"""What launch.sweep would do with each trial: which stages are complete, linked from elsewhere, or run."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from atspeed_jax.runs.assets import BORROWED, fingerprint, recorded_fingerprint
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from launch.outcomes import STAGES, done_rows
from launch.trials import SweepConfig, Trial


class Foresight:
    """Stages of trials that are asked about in the order in which they would run.

    workdir, settings: of the sweep. others: name of a trial -> directories whose finished stages it may link. waits:
    whether a trial sees what those before it make, as trials in one process do.
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
        self.made: dict[str, Path] = {}  # what a stage is made of -> where a trial before would have made it

    def done(self, trial: Trial) -> bool:
        """Whether all that the sweep wants of the trial is measured."""
        return done_rows(self.workdir / trial.name, trial, self.settings) is not None

    def stages(self, trial: Trial) -> list[str]:
        """What each stage of a trial that is not done would do, such as "target: linked from RUN".

        Nothing is written: stages that are there are linked into a temporary directory, which asks as the trial would.
        Raises ValueError for settings that the trial would be refused for.
        """
        own, lines = self.workdir / trial.name, []
        with tempfile.TemporaryDirectory() as place:
            view = Run(trial.config, Path(place) / "view", self.data_dir)
            view.workdir.mkdir()
            for stage in STAGES:
                lines.append(f"{stage}: {self._stage(stage, trial.config, view, own, self.others[trial.name])}")
        return [*lines, "measurements: run"]

    def _stage(self, stage: str, config: ExperimentConfig, view: Run, own: Path, others: Sequence[Path]) -> str:
        known = self._known(stage, view)
        if _complete(own / stage):
            if known and stage != "data" and recorded_fingerprint(own / stage) != view.stage_fingerprint(stage):
                return f"REFUSED, {own / stage} was made with other settings"
            (view.workdir / stage).symlink_to((own / stage).absolute(), target_is_directory=True)
            return "complete"
        if (own / stage).exists():
            return "runs, from where it was stopped"
        if stage in BORROWED and known:
            view.borrow(stage, others)
            if (view.workdir / stage).exists():
                return f"linked from {(view.workdir / stage).readlink().parent}"
        if stage in BORROWED and self.waits:
            before = self.made.setdefault(fingerprint(stage, *_made_of(stage, config)), own)
            if before != own:
                return f"linked from {before}, which makes it first"
        return "runs"

    @staticmethod
    def _known(stage: str, view: Run) -> bool:
        """Whether all that the stage's fingerprint depends on is there."""
        needed = {"data": (), "target": ("data",), "teacher": ("data", "target"), "draft_sft": ("data",)}
        return all((view.workdir / one).exists() for one in needed.get(stage, ("data", "target", "teacher")))


def _complete(directory: Path) -> bool:
    if directory.name == "data":  # is renamed to this name when it is whole
        return directory.exists()
    return directory.exists() and recorded_fingerprint(directory) is not None


def _made_of(stage: str, config: ExperimentConfig) -> tuple:
    """The settings that a stage's output depends on, of those that are linked."""
    target = config.data, config.target, config.train_target
    return {
        "data": (config.data,),
        "target": target,
        "teacher": (*target, config.teacher, config.decode.score_norm),
        "draft_sft": (config.data, config.draft, config.train_draft),
    }[stage]
