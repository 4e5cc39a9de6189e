"""A run: one experiment in one working directory, made stage by stage.

WORKDIR/data         the dataset
WORKDIR/target       the trained target
WORKDIR/teacher      the target's beams on training users
WORKDIR/draft_sft    the draft after next-item training
WORKDIR/draft        the draft after alignment
WORKDIR/tuned.json   the fastest way to decode on this machine
WORKDIR/evaluation   measurements; report.html, .json, .md and plots lie in WORKDIR
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh

from atspeed_jax.evaluation.evaluate import Evaluation
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.runs.assets import Assets
from atspeed_jax.runs.borrow import borrow
from atspeed_jax.runs.experiment import ExperimentConfig, ServeConfig
from atspeed_jax.runs.measure import measurements, write_evaluation
from atspeed_jax.runs.stages import StageOptions, Stages
from atspeed_jax.runs.trained import RunView
from atspeed_jax.runs.tuning import tune_stage

STAGES = ("data", "target", "teacher", "draft", "tune", "evaluation")


class Run(RunView):
    """One experiment in one working directory.

    Every stage is a method. The evaluation is made as `serve` says, all other stages as
    `config` says.

    Attributes:
      options: how stages are run.
    """

    def __init__(
        self, config: ExperimentConfig, workdir: Path, data_dir: Path | None, *, serve: ServeConfig | None = None
    ):
        """Opens the run and reads nothing yet.

        Args:
          config: what the run is, or will be, trained for.
          workdir: the working directory; may be missing.
          data_dir: directory of the interactions, for a config that reads them; None
            for data that are synthetic or stored already.
          serve: how a trained pair decodes; None for a run that may still be trained,
            which decodes as it is trained for.

        Raises:
          DatasetError: a data directory is given, but the config makes its data.
        """
        super().__init__(Assets(config, workdir, data_dir, serve))
        self.options = StageOptions()

    @property
    def mesh(self) -> Mesh:
        return self.assets.mesh

    @property
    def tree_context(self):
        return self.assets.tree_context

    @property
    def pretrained(self) -> dict[str, Pretrained]:
        return self.assets.pretrained

    def base_of(self, name: str) -> Pretrained | None:
        """The pretrained model whose vocabulary a model has: see `Assets.base_of`."""
        return self.assets.base_of(name)

    def trained(self, name: str):
        """What the training of "target" or "draft" left: see `TrainedModels.load`."""
        return self.models.load({"target": self.assets.target, "draft": self.assets.draft}[name])

    def stage_fingerprint(self, stage: str) -> str:
        """What the output of a stage depends on: see `Fingerprints.of`."""
        return self.models.fingerprints.of(stage)

    def borrow(self, stage: str, others: Sequence[Path]) -> None:
        """Links a finished stage of another run into this one: see `borrow.borrow`."""
        borrow(self.workdir, stage, others, self.stage_fingerprint)

    @property
    def _stages(self) -> Stages:
        return Stages(self.assets, self.models, self.options)

    def data(self, *, always_print: bool = False) -> None:
        """Makes the data: see `Stages.data`."""
        self._stages.data(always_print=always_print)

    def target(self) -> None:
        """Trains the target: see `Stages.target`."""
        self._stages.target()

    def teacher(self) -> None:
        """Makes the teacher data: see `Stages.teacher`."""
        self._stages.teacher()

    def draft_sft(self):
        """Trains the draft on next items: see `Stages.draft_sft`."""
        return self._stages.draft_sft()

    def draft(self) -> None:
        """Trains the draft: see `Stages.draft`."""
        self._stages.draft()

    def tune(self) -> None:
        """Finds the fastest way to decode: see `tuning.tune_stage`."""
        tune_stage(self)

    def alignment_batches(self, buckets: tuple[int, ...]):
        """Batches of the teacher data: see `Stages.alignment_batches`."""
        return self._stages.alignment_batches(buckets)

    def measurements(self) -> Evaluation:
        """What is measured of the trained pair: see `measure.measurements`."""
        return measurements(self.assets, self.models)

    def evaluation(self, *, full: bool = False) -> dict:
        """Measures everything and writes the report: see `measure.write_evaluation`."""
        return write_evaluation(self.assets, self.models, full=full)

    def make(self, stage: str):
        """Runs one stage.

        Args:
          stage: one of STAGES, or "draft_sft", the first part of "draft".

        Returns:
          what the method of that name returns.
        """
        stages = {
            "data": self.data,
            "target": self.target,
            "teacher": self.teacher,
            "draft_sft": self.draft_sft,
            "draft": self.draft,
            "tune": self.tune,
            "evaluation": self.evaluation,
        }
        return stages[stage]()

    def all(self, *, tune: bool = True) -> dict:
        """Runs every stage in order.

        Args:
          tune: whether stage "tune" is among them.

        Returns:
          the report.
        """
        for stage in STAGES[:-1]:
            if stage != "tune" or (tune and self.serve.evaluate.tune):
                print(f"[{stage}]", flush=True)
                self.make(stage)
        return self.evaluation()
