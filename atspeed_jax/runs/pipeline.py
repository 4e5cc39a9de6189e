"""The stages of a run in order. Each stage skips what is complete and resumes what is not.

WORKDIR/data         the dataset
WORKDIR/target       the trained target
WORKDIR/teacher      the target's beams on training users
WORKDIR/draft_sft    the draft after next-item training
WORKDIR/draft        the draft after alignment
WORKDIR/evaluation   measurements; report.json, report.md and plots lie in WORKDIR
"""

from __future__ import annotations

import dataclasses
import functools

from tqdm import tqdm

from atspeed_jax.alignment.align import beams_loss
from atspeed_jax.alignment.examples import teacher_examples
from atspeed_jax.alignment.histories import histories_loss
from atspeed_jax.alignment.losses import ON_HISTORIES
from atspeed_jax.alignment.teacher import alignment_batches, load_teacher, make_teacher
from atspeed_jax.data.batches import BatchShape, steps_per_epoch, train_batches, valid_batches
from atspeed_jax.data.dataset import Dataset, DatasetError, build_dataset
from atspeed_jax.data.summary import summarize
from atspeed_jax.decoding.config import prefixes_by_norm, resolve_widths
from atspeed_jax.evaluation.evaluate import Evaluation, evaluate
from atspeed_jax.evaluation.store import MeasurementStore
from atspeed_jax.evaluation.validate import BEAMS, CUT, FixedUsers, fixed_users, list_quality, target_calls
from atspeed_jax.reporting.curves import loss_curves
from atspeed_jax.reporting.report import environment, format_table, write_report
from atspeed_jax.runs.assets import RunAssets, fingerprint
from atspeed_jax.runs.experiment import TrainConfig
from atspeed_jax.serving.settings import Setting
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.next_item import training_loss, validation
from atspeed_jax.training.preemption import stop_after_sigterm, until_sigterm
from atspeed_jax.training.sharding import own_rows, shard_batch
from atspeed_jax.training.train import fit
from atspeed_jax.utils.distributed import agreed, barrier, is_writer

STAGES = ("data", "target", "teacher", "draft", "evaluation")


class Run(RunAssets):
    """One experiment in one working directory; every stage is a method. All but the evaluation are made as `config`
    says, and the evaluation as `serve` says."""

    def data(self, *, told: bool = False) -> None:
        """Reads or makes the interactions, checks them, and stores them as array_record; says what they are.

        told: say so of data that are stored already, too.
        """
        directory = self.workdir / "data"
        new = not agreed(directory.exists)
        if new:
            if self.source is None:
                raise DatasetError(
                    "this config reads a data directory: give --data_dir=DIR with sequential_{train,valid,test}.txt "
                    "and one *.json index"
                )
            self.checked(Dataset.of(self.source))  # all complaints first: what is stored would be in the way later
            self.begins("data")
            if is_writer():
                build_dataset(self.source, directory)
        barrier("data")
        dataset = self.dataset  # loaded to be checked
        if (new or told) and is_writer():
            print(summarize(dataset).text(), flush=True)

    def target(self) -> None:
        """Trains the target from scratch on train; the step with the best lists on validation users is kept."""
        train = self.config.train_target

        def decoder(params):
            return self.decoders(None, target_params=params).build(Setting.beam_search(BEAMS, "vocab"))

        lists = list_quality(self.dataset, self._fixed_users(train), decoder)
        best = (f"ndcg@{CUT}", "max")
        self._fit_next_item("target", "target", train, self._target_fingerprint, lists=lists, best=best)

    def teacher(self) -> None:
        """Decodes the target's beams for every training user."""
        c = self.config
        make_teacher(
            self.workdir / "teacher",
            self.dataset,
            self.target_model,
            self.target_params,
            self.tree_context,
            c.teacher,
            history=c.data.history,
            score_norm=c.decode.score_norm,
            fingerprint=self._teacher_fingerprint,
            about=self._teacher_about,
            place=self._place,
            begins=functools.partial(self.begins, "teacher"),
            progress=lambda parts: until_sigterm(tqdm(parts, desc="teacher", unit="part"), "teacher"),
        )

    def _place(self, batch):
        """A host batch on the mesh."""
        return shard_batch(batch, self.mesh)

    def draft_sft(self):
        """Trains the draft's start, on next items (SFT); returns its parameters."""
        return self._fit_next_item("draft_sft", "draft", self.config.train_draft, self._sft_fingerprint)

    def draft(self) -> None:
        """Trains the draft: next items first (SFT), then alignment; the step with fewest target calls on validation
        users is kept."""
        c = self.config
        # The teacher first: what is wrong with it is said before the long training of the start.
        loss, batches, epoch = self._on_histories() if c.align.objective in ON_HISTORIES else self._on_beams()
        sft = self.draft_sft()
        setting = Setting.strict("draft", c.teacher.beams, c.decode)

        def decoder(params):
            return self.decoders(params).build(setting)

        fit(
            name="draft",
            workdir=self.workdir / "draft",
            config=c.train_align.fit(epoch),
            fingerprint=self._draft_fingerprint,
            init_params=lambda key, frozen: frozen["sft"],
            loss=loss,
            batches=batches,
            evaluate=target_calls(self._fixed_users(c.train_align), decoder),
            monitor="target_calls",
            mode="min",
            mesh=self.mesh,
            profile_steps=self.profile_steps,
            frozen={"sft": sft, "target": self.target_params, "context": self.tree_context},
            begins=functools.partial(self.begins, "draft"),
        )

    def _on_beams(self):
        """(loss, batches, batches per epoch) of alignment on the teacher's beams."""
        c, model, train = self.config, self.draft_model, self.config.train_align
        batches = self.alignment_batches(train.buckets)
        prefixes = prefixes_by_norm(self.dataset.catalog.id_tokens)[c.decode.score_norm]
        widths = resolve_widths(c.decode.widths, prefixes, c.teacher.beams)
        loss = beams_loss(c.align, model, self.target_model, widths)
        examples = len(teacher_examples(self.dataset, c.teacher.prompts)[1])
        return loss, batches, -(-examples // train.batch_size)

    def alignment_batches(self, buckets: tuple[int, ...]):
        """Of this run's teacher data, with prompts of these lengths in items."""
        c, train = self.config, self.config.train_align
        return alignment_batches(
            self.dataset,
            self.trie,
            load_teacher(self.workdir / "teacher", fingerprint=self._teacher_fingerprint, about=self._teacher_about),
            prompts=c.teacher.prompts,
            history=c.data.history,
            buckets=buckets,
            batch_size=train.batch_size,
            seed=train.seed,
            rows=own_rows(self.mesh, train.batch_size),
        )

    def _on_histories(self):
        """The same of the objectives that never look at the teacher's beams."""
        c = self.config
        shape = self._shape(dataclasses.replace(c.train_align, buckets=c.train_draft.buckets))
        loss = histories_loss(c.align, self.draft_model, self.target_model)
        rows = own_rows(self.mesh, c.train_align.batch_size)
        batches = train_batches(self.dataset, shape, seed=c.train_align.seed, rows=rows)
        return loss, batches, steps_per_epoch(self.dataset, shape)

    def _shape(self, train: TrainConfig) -> BatchShape:
        """Of the batches of next-item training."""
        return BatchShape(self.config.data.history, train.buckets, train.batch_size)

    def _fit_next_item(
        self,
        directory: str,
        name: str,
        train: TrainConfig,
        stage_fingerprint: str,
        *,
        lists=lambda params: {},
        best=("nats_per_item", "min"),
    ):
        """lists: params -> further figures. best: the figure by which parameters are kept, and which way."""
        start, length = getattr(self, f"{name}_start"), self.dataset.catalog.length
        shape = self._shape(train)
        rows = own_rows(self.mesh, train.batch_size)
        batches = train_batches(self.dataset, shape, seed=train.seed, rows=rows)
        held_out = valid_batches(self.dataset, shape, users=train.valid_users, seed=train.seed)
        nats = validation(getattr(self, f"{name}_model"), held_out, length, self.mesh)

        def evaluate(trained):
            params = start.whole(trained)
            return nats(params) | lists(params)

        return fit(
            name=directory,
            workdir=self.workdir / directory,
            config=train.fit(steps_per_epoch(self.dataset, shape)),
            fingerprint=stage_fingerprint,
            init_params=start.init,
            loss=training_loss(start.read, length, train.shuffle, start.lora),
            batches=batches,
            evaluate=evaluate,
            monitor=best[0],
            mode=best[1],
            mesh=self.mesh,
            profile_steps=self.profile_steps,
            frozen=start.frozen,
            # An adapter's base has no gradient of its own; one that is trained whole is but where it began.
            frozen_flops=0.0 if start.lora is None else 4.0,
            begins=functools.partial(self.begins, directory),
        )

    def _fixed_users(self, train: TrainConfig) -> FixedUsers:
        c = self.config
        return fixed_users(self.dataset, c.evaluate, c.data.history, count=train.valid_users, seed=train.seed)

    def measurements(self) -> Evaluation:
        """What is measured of this run's models, on whom, and where it is remembered."""
        serve, target = self.serve, fingerprint_of(self.target_params)[:16]
        measured = dataclasses.replace(serve.evaluate, grid_beams=(), grid_widths=())  # a wider grid only adds rows
        devices = (tuple(self.mesh.shape.items()),) if self.mesh.size > 1 else ()  # times are theirs
        models = target, fingerprint_of(self.draft_params)
        name = fingerprint(*models, measured, serve.decode, self.reads, *devices)
        return Evaluation(
            MeasurementStore(self.workdir / "evaluation" / name, self._say_or_stop),
            self.dataset,
            self.decoders(self.draft_params),
            serve.decode,
            serve.evaluate,
            history=self.config.data.history,
            target_fingerprint=target,
        )

    @staticmethod
    def _say_or_stop(text: str) -> None:
        """Between two measurements of the evaluation: each is a file."""
        stop_after_sigterm("evaluation")
        print(f"[evaluation] {text}", flush=True)

    def evaluation(self, *, full: bool = False) -> dict:
        """Measures everything and writes report.json, report.md and plots; returns the report."""
        c, catalog = self.config, self.dataset.catalog
        quality, rows = evaluate(self.measurements(), full=full)
        report = {
            "config": c.name,
            "dataset": {
                "name": self.dataset.name,
                "users": self.dataset.users,
                "items": catalog.items,
                "distinct_ids": len(catalog.ids),
                "collisions": len(catalog.collisions),
            },
            "quality": quality,
            "decoding": rows,
            "environment": environment()
            | {name: model.arithmetic for name, model in (("target", self.target_model), ("draft", self.draft_model))},
        }
        weights = {"target": {}, "draft_sft": {}, "draft": c.align.weights}
        curves = {
            name: loss_curves(read_metrics(self.workdir / name / "metrics.jsonl"), own, catalog.length)
            for name, own in weights.items()
        }
        write_report(self.workdir, report, curves)
        print(format_table(report))
        return report

    def all(self) -> dict:
        """Every stage in order."""
        for stage in STAGES[:-1]:
            print(f"[{stage}]", flush=True)
            getattr(self, stage)()
        return self.evaluation()
