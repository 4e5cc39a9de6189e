"""The stages of a run that make something: data, target, teacher and draft.

A stage skips what is complete, resumes what is incomplete, and refuses output of other
settings.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
from tqdm import tqdm

from atspeed_jax.alignment.align import make_align_loss
from atspeed_jax.alignment.batches import alignment_batches
from atspeed_jax.alignment.ground_truth import make_ground_truth_loss
from atspeed_jax.alignment.losses import ON_GROUND_TRUTH
from atspeed_jax.alignment.teacher import TeacherTask, make_teacher
from atspeed_jax.alignment.teacher_files import load_teacher
from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.data.batches import BatchShape, steps_per_epoch, train_batches, valid_batches
from atspeed_jax.data.dataset import Dataset, DatasetError, build_dataset
from atspeed_jax.data.layouts import needs
from atspeed_jax.data.sources import Source
from atspeed_jax.data.summary import summarize
from atspeed_jax.decoding.config import prefixes_by_norm, resolve_widths
from atspeed_jax.evaluation.validate import BEAMS, CUT, FixedUsers, fixed_users, list_quality, target_calls
from atspeed_jax.items.names import NAMES_FILE
from atspeed_jax.items.titles import TITLES_FILE
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.runs.assets import Assets, ModelAssets
from atspeed_jax.runs.experiment import TrainConfig
from atspeed_jax.runs.trained import TrainedModels
from atspeed_jax.serving.settings import Setting
from atspeed_jax.training.directory import METADATA_FILE, claimed_directory
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.next_item import training_loss, validation
from atspeed_jax.training.preemption import until_sigterm
from atspeed_jax.training.sharding import own_rows, shard_batch, tree_shardings
from atspeed_jax.training.task import TrainingTask
from atspeed_jax.training.train import fit
from atspeed_jax.utils.distributed import agreed, barrier, is_writer
from atspeed_jax.utils.files import write_json


@dataclasses.dataclass(frozen=True)
class StageOptions:
    """How stages are run. The output of a stage does not depend on it.

    Attributes:
      profile_steps: first and last step to trace in every training, counted from 1.
      on_begin: called with the name of a stage when the stage begins, after everything
        that could be refused has been checked.
    """

    profile_steps: tuple[int, int] | None = None
    on_begin: Callable[[str], object] = lambda stage: None


class Stages:
    """Makes data, target, teacher data and draft as the config of a run says."""

    def __init__(self, assets: Assets, models: TrainedModels, options: StageOptions):
        self._assets, self._models, self._options = assets, models, options
        self._config, self._fingerprints = assets.config, models.fingerprints

    def data(self, *, always_print: bool = False) -> None:
        """Reads or makes the interactions, checks them, stores them, prints a summary.

        Args:
          always_print: print the summary of data that are stored already, too.

        Raises:
          DatasetError: the data directory is not given, or the run cannot work with
            the data.
        """
        assets = self._assets
        directory = assets.workdir / "data"
        new = not agreed(directory.exists)
        if new:
            if assets.source is None:
                raise DatasetError(
                    f"this config reads a data directory: give --data_dir=DIR with {needs(self._config.data.source)}"
                )
            # Every complaint comes first: what is stored would block the next try.
            assets.checked(Dataset.of(assets.source))
            self._options.on_begin("data")
            if is_writer():
                build_dataset(assets.source, directory)
                self._keep_titles(assets.source)
                self._keep_names(assets.source)
        barrier("data")
        dataset = assets.dataset  # loaded, and so checked
        if (new or always_print) and is_writer():
            print(summarize(dataset).text(), flush=True)

    def _keep_titles(self, source: Source) -> None:
        """Stores the titles of a source for the report, unless the user has put some."""
        file = self._assets.workdir / TITLES_FILE
        if source.titles and not file.exists():
            write_json(file, {str(item): title for item, title in source.titles.items()})

    def _keep_names(self, source: Source) -> None:
        """Stores what the data call the items, so that lists can say it."""
        file = self._assets.workdir / NAMES_FILE
        if source.names is not None:
            write_json(file, list(source.names))

    def target(self) -> None:
        """Trains the target on next items.

        The parameters of the step with the best lists on validation users are kept. A
        target that is not trained leaves a record alone.
        """
        train = self._config.train_target
        if train is None:
            directory, made_of = self._assets.workdir / "target", self._fingerprints.target
            begin = functools.partial(self._options.on_begin, "target")
            if is_writer():
                with claimed_directory(directory, "target", made_of, begin):
                    write_json(directory / METADATA_FILE, {"fingerprint": made_of, "trained": False})
            barrier("target")
            return

        def decoder(params):
            return self._models.decoders(None, target_params=params).build(Setting.beam_search(BEAMS, "vocab"))

        lists = list_quality(self._assets.dataset, self._validation_users(train), decoder)
        task = self._next_item_task("target", self._assets.target, train, lists)
        task = dataclasses.replace(task, monitor=f"ndcg@{CUT}", mode="max")
        self._fit(task, self._next_item_config(train))

    def teacher(self) -> None:
        """Decodes the target's beams for every training user and stores them."""
        c, assets = self._config, self._assets
        task = TeacherTask(
            dataset=assets.dataset,
            model=assets.target.config,
            params=self._models.target_params,
            context=assets.tree_context,
            config=c.teacher,
            history=c.data.history,
            score_norm=c.decode.score_norm,
        )
        make_teacher(
            assets.workdir / "teacher",
            task,
            fingerprint=self._fingerprints.teacher,
            about=self._fingerprints.teacher_parts,
            place=lambda batch: shard_batch(batch, assets.mesh),
            on_begin=functools.partial(self._options.on_begin, "teacher"),
            progress=lambda parts: until_sigterm(tqdm(parts, desc="teacher", unit="part"), "teacher"),
        )

    def draft_sft(self):
        """Trains the draft on next items (SFT); alignment starts from the result.

        A draft of the target's layers is not trained here if the config says so, and
        leaves nothing on disk.

        Returns:
          its parameters.
        """
        train, mesh = self._config.train_draft, self._assets.mesh
        if train is None:
            start = self._models.start(self._assets.draft)
            placement = tree_shardings(param_shapes(start.model), mesh)
            return jax.jit(start.init, out_shardings=placement)(jax.random.key(0), start.frozen)
        task = self._next_item_task("draft_sft", self._assets.draft, train)
        return self._fit(task, self._next_item_config(train))

    def draft(self) -> None:
        """Trains the draft: on next items first (SFT), then by alignment.

        Kept are the parameters of the step with the fewest target calls on validation
        users.
        """
        c, assets = self._config, self._assets
        # The teacher data first: their faults show before the long training of the SFT.
        on_histories = c.align.objective in ON_GROUND_TRUTH
        loss, batches, epoch = self._history_alignment() if on_histories else self._beam_alignment()
        sft = self.draft_sft()
        setting = Setting.strict("draft", c.teacher.beams, c.decode)

        def decoder(params):
            return self._models.decoders(params).build(setting)

        task = TrainingTask(
            name="draft",
            fingerprint=self._fingerprints.draft,
            init_params=lambda key, frozen: frozen["sft"],
            loss=loss,
            batches=batches,
            evaluate=target_calls(self._validation_users(c.train_align), decoder),
            monitor="target_calls",
            mode="min",
            frozen={"sft": sft, "target": self._models.target_params, "context": assets.tree_context},
        )
        self._fit(task, c.train_align.fit(epoch))

    def alignment_batches(self, buckets: tuple[int, ...]):
        """Batches of this run's teacher data.

        Args:
          buckets: lengths of the prompts, in items.

        Raises:
          TeacherError: the teacher data are incomplete, damaged, or of other settings.
        """
        c, assets, train = self._config, self._assets, self._config.train_align
        expected = {"fingerprint": self._fingerprints.teacher, "about": self._fingerprints.teacher_parts}
        return alignment_batches(
            assets.dataset,
            assets.trie,
            load_teacher(assets.workdir / "teacher", **expected),
            BatchShape(c.data.history, buckets, train.batch_size),
            prompts=c.teacher.prompts,
            seed=train.seed,
            rows=own_rows(assets.mesh, train.batch_size),
        )

    def _beam_alignment(self):
        """(loss, batches, steps per epoch) of an objective on the teacher's beams."""
        c, assets, train = self._config, self._assets, self._config.train_align
        batches = self.alignment_batches(train.buckets)
        prefixes = prefixes_by_norm(assets.dataset.catalog.id_tokens)[c.decode.score_norm]
        widths = resolve_widths(c.decode.widths, prefixes, c.teacher.beams)
        loss = make_align_loss(c.align, assets.draft.config, assets.target.config, widths, c.decode.budget)
        examples = len(teacher_prompts(assets.dataset, c.teacher.prompts)[1])
        return loss, batches, -(-examples // train.batch_size)

    def _history_alignment(self):
        """(loss, batches, steps per epoch) of an objective on the users' histories."""
        c, assets = self._config, self._assets
        assert c.train_draft is not None, "ExperimentConfig has checked it"
        loss = make_ground_truth_loss(c.align, assets.draft.config, assets.target.config)
        train = dataclasses.replace(c.train_align, buckets=c.train_draft.buckets)
        return loss, self._next_item_batches(train), steps_per_epoch(assets.dataset, self._batch_shape(train))

    def _batch_shape(self, train: TrainConfig) -> BatchShape:
        """The shapes of the batches of next-item training."""
        return BatchShape(self._config.data.history, train.buckets, train.batch_size)

    def _next_item_batches(self, train: TrainConfig):
        rows = own_rows(self._assets.mesh, train.batch_size)
        return train_batches(self._assets.dataset, self._batch_shape(train), seed=train.seed, rows=rows)

    def _next_item_config(self, train: TrainConfig) -> FitConfig:
        return train.fit(steps_per_epoch(self._assets.dataset, self._batch_shape(train)))

    def _next_item_task(
        self, name: str, model: ModelAssets, train: TrainConfig, more_figures: Callable = lambda params: {}
    ) -> TrainingTask:
        """Next-item training of a model. The lowest validation loss is kept.

        Args:
          name: the stage.
          more_figures: params -> further figures of an evaluation by name.
        """
        assets, start = self._assets, self._models.start(model)
        length = assets.dataset.catalog.length
        held_out = valid_batches(assets.dataset, self._batch_shape(train), users=train.valid_users, seed=train.seed)
        nats = validation(model.config, held_out, length, assets.mesh)

        def evaluate(trained):
            params = start.full_params(trained)
            return nats(params) | more_figures(params)

        return TrainingTask(
            name=name,
            fingerprint=self._fingerprints.of(name),
            init_params=start.init,
            loss=training_loss(start.model, length, train.shuffle, start.lora),
            batches=self._next_item_batches(train),
            evaluate=evaluate,
            monitor="nats_per_item",
            mode="min",
            frozen=start.frozen,
            # The base of an adapter is read in every step, without a gradient. A base
            # that is trained itself is read once, when training starts.
            frozen_flops=0.0 if start.lora is None else 4.0,
        )

    def _fit(self, task: TrainingTask, config: FitConfig):
        """Trains in WORKDIR/NAME; returns the parameters kept."""
        return fit(
            task,
            config,
            self._assets.workdir / task.name,
            self._assets.mesh,
            profile_steps=self._options.profile_steps,
            on_begin=functools.partial(self._options.on_begin, task.name),
        )

    def _validation_users(self, train: TrainConfig) -> FixedUsers:
        c = self._config
        return fixed_users(self._assets.dataset, c.evaluate, c.data.history, count=train.valid_users, seed=train.seed)
