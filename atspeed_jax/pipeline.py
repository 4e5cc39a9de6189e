"""The stages of a run in order: data, target, teacher, draft, evaluation.

Each skips what is complete and resumes what is not. WORKDIR/ data target teacher draft_sft draft evaluation report.*

A stage's fingerprint is a hash of the settings and data it depends on; output of another fingerprint is refused, never
overwritten.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from atspeed_jax.alignment.align import align_loss
from atspeed_jax.alignment.examples import EXAMPLES, teacher_examples
from atspeed_jax.alignment.teacher import alignment_batches, load_teacher, make_teacher
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.checks import check_same_data, check_settings, check_splits
from atspeed_jax.data.batches import steps_per_epoch, train_batches, valid_batches
from atspeed_jax.data.dataset import Dataset, DatasetError, build_dataset, load_dataset
from atspeed_jax.data.sources import Source, read_atspeed, synthesize
from atspeed_jax.decoding.base import prefixes_by_norm, resolve_widths
from atspeed_jax.evaluation.decoders import Decoders, speculative
from atspeed_jax.evaluation.evaluate import Evaluation, evaluate
from atspeed_jax.evaluation.report import environment, format_table, write_report
from atspeed_jax.evaluation.validate import CUT, FixedUsers, fixed_users, list_quality, target_calls
from atspeed_jax.experiment import ExperimentConfig, TrainConfig
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.training.checkpoint import fingerprint_of, load_params
from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.next_item import training_loss, validation
from atspeed_jax.training.train import fit

STAGES = ("data", "target", "teacher", "draft", "evaluation")


def fingerprint(*parts) -> str:
    """16 hexadecimal digits of a hash over configs (frozen dataclasses print their fields) and other fingerprints."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Run:
    """One experiment in one working directory; every property is loaded once and every stage is a method."""

    def __init__(self, config: ExperimentConfig, workdir: Path, data_dir: Path | None):
        if config.data.source == "synthetic" and data_dir is not None:
            raise DatasetError(
                f"this config makes its own data, {data_dir} would not be read: leave --data_dir out, or take a config "
                "with data.source 'atspeed'"
            )
        self.config, self.workdir, self.data_dir = config, Path(workdir), data_dir

    # What the stages share.

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The stored dataset.

        Raises, before any long work, DatasetError if it is not what config and data directory give or cannot be
        trained and measured on, and ValueError for settings that cannot work with it.
        """
        directory = self.workdir / "data"
        dataset = load_dataset(directory)
        if self.source is not None:
            check_same_data(dataset, directory, self.source, str(self.data_dir or "config.data.synthetic"))
        check_splits(dataset)
        check_settings(self.config, dataset)
        return dataset

    @functools.cached_property
    def source(self) -> Source | None:
        """What config and data directory give; None for stored data whose directory is not named again."""
        if self.config.data.source == "synthetic":
            return synthesize(self.config.data.synthetic)
        return None if self.data_dir is None else read_atspeed(self.data_dir)

    @functools.cached_property
    def trie(self):
        return build_trie(self.dataset.catalog.id_tokens)

    @functools.cached_property
    def tree_context(self):
        return tree_context(self.trie, self.dataset.catalog.id_tokens)

    @property
    def target_model(self) -> LlamaConfig:
        return self.config.target.llama(self.dataset.catalog.vocab_size)

    @property
    def draft_model(self) -> LlamaConfig:
        return self.config.draft.llama(self.dataset.catalog.vocab_size)

    @functools.cached_property
    def target_params(self):
        return self._trained("target", self.target_model, self._target_fingerprint)

    @functools.cached_property
    def draft_params(self):
        return self._trained("draft", self.draft_model, self._draft_fingerprint)

    def decoders(self, draft_params) -> Decoders:
        catalog = self.dataset.catalog
        counts = np.bincount(catalog.id_of_item, weights=self.dataset.popularity, minlength=len(catalog.ids))
        return Decoders(
            self.target_model,
            self.target_params,
            self.draft_model,
            draft_params,
            self.trie,
            popularity_prior(self.trie, catalog.id_tokens, counts),
            prefixes_by_norm(catalog.id_tokens),
        )

    @property
    def _target_fingerprint(self) -> str:
        c = self.config
        return fingerprint(self.dataset.fingerprint, c.data.history, c.target, c.train_target)

    @functools.cached_property
    def _teacher_fingerprint(self) -> str:
        c = self.config
        return fingerprint(fingerprint_of(self.target_params), EXAMPLES, c.teacher, c.data.history, c.decode.score_norm)

    @property
    def _sft_fingerprint(self) -> str:
        c = self.config
        return fingerprint(self.dataset.fingerprint, c.data.history, c.draft, c.train_draft)

    @property
    def _draft_fingerprint(self) -> str:
        c = self.config
        return fingerprint(self._sft_fingerprint, self._teacher_fingerprint, c.align, c.train_align, c.decode)

    def _trained(self, name: str, model: LlamaConfig, expected: str):
        abstract = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
        return load_params(self.workdir / name, abstract, fingerprint=expected)[0]

    # The stages.

    def data(self) -> None:
        """Reads or makes the interactions and stores them as array_record."""
        directory = self.workdir / "data"
        if not directory.exists():
            if self.source is None:
                raise DatasetError(
                    "this config reads a data directory: give --data_dir=DIR with sequential_{train,valid,test}.txt "
                    "and one *.json index"
                )
            build_dataset(self.source, directory)
        self.dataset  # noqa: B018 (loaded to be checked)

    def target(self) -> None:
        """Trains the target from scratch on train; the step with the best lists on validation users is kept."""
        model, train = self.target_model, self.config.train_target
        lists = list_quality(self.dataset, self._fixed_users(train), model, self.trie)
        self._fit_next_item("target", model, train, self._target_fingerprint, lists=lists, best=(f"ndcg@{CUT}", "max"))

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
            progress=functools.partial(tqdm, desc="teacher", unit="part"),
        )

    def draft(self) -> None:
        """Trains the draft: next items first (SFT), then alignment; the step with fewest target calls on validation
        users is kept."""
        c, model = self.config, self.draft_model
        sft = self._fit_next_item("draft_sft", model, c.train_draft, self._sft_fingerprint)
        teacher = load_teacher(self.workdir / "teacher", fingerprint=self._teacher_fingerprint)
        context, train = self.tree_context, c.train_align
        batches = alignment_batches(
            self.dataset,
            self.trie,
            teacher,
            prompts=c.teacher.prompts,
            history=c.data.history,
            buckets=train.buckets,
            batch_size=train.batch_size,
            seed=train.seed,
        )
        examples = len(teacher_examples(self.dataset, c.teacher.prompts)[1])
        setting = speculative("draft", c.teacher.beams, c.decode)
        prefixes = prefixes_by_norm(self.dataset.catalog.id_tokens)[c.decode.score_norm]
        widths = resolve_widths(c.decode.widths, prefixes, c.teacher.beams)

        def decoder(params):
            return self.decoders(params).build(setting)

        def loss(params, batch, key):
            models = c.align, model, self.target_model, params, self.target_params
            return align_loss(*models, context, batch, key, widths=widths)

        fit(
            name="draft",
            workdir=self.workdir / "draft",
            config=train.fit(-(-examples // train.batch_size)),
            fingerprint=self._draft_fingerprint,
            init_params=lambda key: sft,
            loss=loss,
            batches=batches,
            evaluate=target_calls(self._fixed_users(train), decoder),
            monitor="target_calls",
            mode="min",
        )

    def _fit_next_item(
        self,
        name: str,
        model: LlamaConfig,
        train: TrainConfig,
        stage_fingerprint: str,
        *,
        lists=lambda params: {},
        best=("nats_per_item", "min"),
    ):
        """lists: params -> further figures. best: the figure by which parameters are kept, and which way."""
        shape = {"history": self.config.data.history, "buckets": train.buckets, "batch_size": train.batch_size}
        batches = train_batches(self.dataset, seed=train.seed, **shape)
        held_out = valid_batches(self.dataset, users=train.valid_users, seed=train.seed, **shape)
        nats = validation(model, held_out, self.dataset.catalog.length)
        return fit(
            name=name,
            workdir=self.workdir / name,
            config=train.fit(steps_per_epoch(self.dataset, **shape)),
            fingerprint=stage_fingerprint,
            init_params=functools.partial(init_params, model),
            loss=training_loss(model, self.dataset.catalog.length, train.shuffle),
            batches=batches,
            evaluate=lambda params: nats(params) | lists(params),
            monitor=best[0],
            mode=best[1],
        )

    def _fixed_users(self, train: TrainConfig) -> FixedUsers:
        c = self.config
        return fixed_users(self.dataset, c.evaluate, c.data.history, count=train.valid_users, seed=train.seed)

    def measurements(self) -> Evaluation:
        """What is measured of this run's models, on whom, and where it is remembered."""
        c, target = self.config, fingerprint_of(self.target_params)[:16]
        measured = dataclasses.replace(c.evaluate, grid_beams=(), grid_widths=())  # a wider grid only adds rows
        return Evaluation(
            self.workdir / "evaluation",
            self.dataset,
            self.decoders(self.draft_params),
            c.decode,
            c.evaluate,
            history=c.data.history,
            target_fingerprint=target,
            say=lambda text: print(f"[evaluation] {text}", flush=True),
            fingerprint=fingerprint(target, fingerprint_of(self.draft_params), measured, c.decode, c.data.history),
        )

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
            "environment": environment(),
        }
        curves = {
            name: read_metrics(self.workdir / name / "metrics.jsonl") for name in ("target", "draft_sft", "draft")
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
