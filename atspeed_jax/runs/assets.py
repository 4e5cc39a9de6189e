"""What the stages of a run share: data, catalogue, models, trained parameters, and the fingerprints that tell whose
output is whose.

A stage's fingerprint is a hash of the settings and data it depends on; output of another fingerprint is refused, never
overwritten.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from atspeed_jax.alignment.examples import EXAMPLES
from atspeed_jax.alignment.teacher import COMPLETE
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.data.dataset import Dataset, DatasetError, load_dataset
from atspeed_jax.data.instructions import read_instruction, same_instruction
from atspeed_jax.data.sources import Source, read_atspeed, synthesize
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.tokenizer import extended_tokenizer
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.pretrained import Pretrained, PretrainedConfig, open_pretrained
from atspeed_jax.runs.checks import (
    check_batches,
    check_mesh,
    check_positions,
    check_same_data,
    check_same_vocabulary,
    check_serving,
    check_settings,
    check_splits,
)
from atspeed_jax.runs.experiment import ExperimentConfig, ServeConfig
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.training.checkpoint import METADATA_FILE, fingerprint_of, load_params
from atspeed_jax.training.sharding import make_mesh, replicated
from atspeed_jax.training.start import Start, finetuned, scratch
from atspeed_jax.utils.distributed import agreed, barrier, is_writer, place
from atspeed_jax.utils.files import read_json

BORROWED = ("data", "target", "teacher", "draft_sft")


def fingerprint(*parts) -> str:
    """16 hexadecimal digits of a hash over configs and other fingerprints.

    A config's field at its default does not count, so that output made before the field existed stays valid.
    """
    return hashlib.sha256(_described(parts).encode()).hexdigest()[:16]


def _described(part) -> str:
    if isinstance(part, tuple):
        return f"({', '.join(map(_described, part))}{',' * (len(part) == 1)})"
    if not dataclasses.is_dataclass(part):
        return repr(part)
    told = [field for field in dataclasses.fields(part) if getattr(part, field.name) != field.default]
    fields = ", ".join(f"{field.name}={_described(getattr(part, field.name))}" for field in told)
    return f"{type(part).__qualname__}({fields})"


def recorded_fingerprint(directory: Path) -> str | None:
    """That of the complete output of a stage, None if it is not complete."""
    for name in (METADATA_FILE, COMPLETE):
        if (directory / name).exists():
            remedy = f"delete {directory} to make it again"
            return read_json(directory / name, remedy, {"fingerprint": str})["fingerprint"]
    return None


class RunAssets:
    """One experiment in one working directory: its data, models and trained parameters, each loaded when first asked
    for, and the fingerprint of what each stage depends on.

    config: what it is trained for; fingerprints are of that alone. serve: how its models decode, of a run where nothing
    more is trained; None: as they are trained for.
    """

    def __init__(
        self, config: ExperimentConfig, workdir: Path, data_dir: Path | None, *, serve: ServeConfig | None = None
    ):
        if config.data.source == "synthetic" and data_dir is not None:
            raise DatasetError(
                f"this config makes its own data, {data_dir} would not be read: leave --data_dir out, or take a config "
                "with data.source 'atspeed'"
            )
        self.config, self.workdir, self.data_dir = config, Path(workdir), data_dir
        self.serve, self.is_trained = serve or ServeConfig.of(config), serve is not None
        self.profile_steps: tuple[int, int] | None = None  # of each training that is run, see `fit`
        self.begins: Callable[[str], object] = lambda stage: None  # called when a stage is begun, and not refused

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The stored dataset.

        Raises DatasetError if it is not what config and data directory give, and as `checked`.
        """
        directory = self.workdir / "data"
        dataset = load_dataset(directory)
        if self.source is not None:
            check_same_data(dataset, directory, self.source, str(self.data_dir or "config.data.synthetic"))
        return self.checked(dataset)

    def checked(self, dataset: Dataset) -> Dataset:
        """The dataset as this run's models read it. Writes nothing.

        Raises, before any long work, DatasetError if it cannot be trained and measured on, and ValueError for settings
        that cannot work with it or with the devices.
        """
        check_splits(dataset)
        base = self.base_of("target")
        if base is not None:
            check_same_vocabulary(self.pretrained.values())
            catalog = dataset.catalog.behind(base.model.vocab_size, base.bos)
            for one in self.pretrained.values():
                extended_tokenizer(Path(one.config.directory), catalog)  # its complaints now, not when it is exported
            catalog = self._with_prompt(catalog)
            check_positions(self.pretrained.values(), catalog, self.config.data.history)
            dataset = dataclasses.replace(dataset, catalog=catalog)
        if self.is_trained:
            check_serving(self.serve, dataset)
        else:
            check_settings(self.config, dataset)
            check_batches(self.config, self.mesh)
        check_mesh({name: self._model(name, dataset) for name in ("target", "draft")}, self.mesh)
        return dataset

    def _with_prompt(self, catalog: Catalog) -> Catalog:
        """The catalogue with the text that the config has around items, if any; PromptError as above."""
        data = self.config.data
        if data.prompt.kind == "item":
            return catalog
        directories = [one.config.directory for one in self.pretrained.values()]
        found = {directory: read_instruction(Path(directory), catalog, data.prompt) for directory in directories}
        return dataclasses.replace(catalog, instruction=same_instruction(found))

    @property
    def reads(self):
        """What the models read of a user, for fingerprints: so many items, and the text around them if any."""
        history, instruction = self.config.data.history, self.dataset.catalog.instruction
        return history if instruction is None else (history, instruction)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices of all processes; raises ShardingError if serve.mesh does not fit them."""
        return make_mesh(self.serve.mesh)

    @functools.cached_property
    def pretrained(self) -> dict[str, Pretrained]:
        """The models that do not begin from scratch, by name; raises ValueError for what is no Llama directory."""
        configs = {"target": self.config.target, "draft": self.config.draft}
        return {name: open_pretrained(c) for name, c in configs.items() if isinstance(c, PretrainedConfig)}

    def base_of(self, name: str) -> Pretrained | None:
        """Whose vocabulary a model has: its own base's, or that of the other model's base if it is made from scratch.

        None: both are.
        """
        return self.pretrained.get(name) or next(iter(self.pretrained.values()), None)

    @functools.cached_property
    def source(self) -> Source | None:
        """What config and data directory give; None for stored data whose directory is not named again."""
        if self.config.data.source == "synthetic":
            return synthesize(self.config.data.synthetic)
        return None if self.data_dir is None else read_atspeed(self.data_dir)

    @functools.cached_property
    def trie(self):
        return place(build_trie(self.dataset.catalog.id_tokens), replicated(self.mesh))

    @functools.cached_property
    def tree_context(self):
        context = tree_context(self.trie, self.dataset.catalog.id_tokens)
        return place(context, replicated(self.mesh))

    @property
    def target_model(self) -> LlamaConfig:
        return self._model("target", self.dataset)

    @property
    def draft_model(self) -> LlamaConfig:
        return self._model("draft", self.dataset)

    def _model(self, name: str, dataset: Dataset) -> LlamaConfig:
        vocabulary = dataset.catalog.vocab_size
        if name in self.pretrained:
            return dataclasses.replace(self.pretrained[name].model, vocab_size=vocabulary)
        return getattr(self.config, name).llama(vocabulary)

    @functools.cached_property
    def target_start(self) -> Start:
        return self._start("target")

    @functools.cached_property
    def draft_start(self) -> Start:
        return self._start("draft")

    def _start(self, name: str) -> Start:
        """How a model begins and what of it is trained; loads a pretrained one."""
        if name in self.pretrained:
            return finetuned(self.pretrained[name], self.dataset.catalog.code_count, self.mesh)
        return scratch(self._model(name, self.dataset))

    @functools.cached_property
    def target_params(self):
        return self.target_start.whole(self.trained("target"))

    @functools.cached_property
    def draft_params(self):
        return self.draft_start.whole(self.trained("draft"))

    def decoders(self, draft_params, *, target_params=None) -> Decoders:
        """Ready to decode with this draft, or None; target_params: None for those of the trained target."""
        catalog = self.dataset.catalog
        counts = np.bincount(catalog.id_of_item, weights=self.dataset.popularity, minlength=len(catalog.ids))
        decoders = Decoders(
            self.target_model,
            self.target_params if target_params is None else target_params,
            self.draft_model,
            draft_params,
            self.trie,
            place(popularity_prior(self.trie, catalog.id_tokens, counts), replicated(self.mesh)),
            prefixes_by_norm(catalog.id_tokens),
            mesh=self.mesh if self.mesh.size > 1 else None,
        )
        return decoders.unrolled() if self.serve.decode.unroll else decoders

    @property
    def _target_fingerprint(self) -> str:
        c = self.config
        return fingerprint(self.dataset.fingerprint, self.reads, self._origin("target"), c.train_target)

    @functools.cached_property
    def _target_bits(self) -> str:
        return fingerprint_of(self.target_params)

    @functools.cached_property
    def _teacher_fingerprint(self) -> str:
        c = self.config
        return fingerprint(self._target_bits, EXAMPLES, c.teacher, self.reads, c.decode.score_norm)

    @property
    def _teacher_about(self) -> dict[str, str]:
        """The same by name."""
        c = self.config
        about = {"target": self._target_bits[:16], "data": self.dataset.fingerprint}
        about |= {"users' histories": fingerprint(self.reads), "score_norm": c.decode.score_norm}
        return about | {name: str(value) for name, value in dataclasses.asdict(c.teacher).items()}

    @property
    def _sft_fingerprint(self) -> str:
        c = self.config
        return fingerprint(self.dataset.fingerprint, self.reads, self._origin("draft"), c.train_draft)

    def _origin(self, name: str):
        """What stands for a model before its training in a fingerprint."""
        return self.pretrained[name].fingerprint if name in self.pretrained else getattr(self.config, name)

    @property
    def _draft_fingerprint(self) -> str:
        c = self.config
        decode = dataclasses.replace(c.decode, unroll=False)  # how layers lie is nothing to a draft
        return fingerprint(self._sft_fingerprint, self._teacher_fingerprint, c.align, c.train_align, decode)

    def borrow(self, stage: str, others: Sequence[Path]) -> None:
        """Links a stage's complete output in another working directory into this one, if it has none and that is the
        very same: made of the same data with the same settings. A draft is its run's own: only what is in BORROWED."""
        own = self.workdir / stage
        # A link that leads nowhere is in the way too: the stage will say what it cannot read.
        if stage not in BORROWED or agreed(lambda: own.exists() or own.is_symlink()):
            return
        # What is looked for all find out together, since that may read the target. One looks, for all: a stage that
        # another job completes meanwhile would be complete for some only.
        expected = None if stage == "data" else self.stage_fingerprint(stage)
        if is_writer():
            for other in (Path(directory).absolute() / stage for directory in others):
                if other.exists() and (stage == "data" or recorded_fingerprint(other) == expected):
                    own.symlink_to(other, target_is_directory=True)
                    break
        barrier(f"borrow {stage}")

    def stage_fingerprint(self, stage: str) -> str:
        """What a stage with a record ("target", "teacher", "draft_sft", "draft") depends on."""
        return getattr(self, "_sft_fingerprint" if stage == "draft_sft" else f"_{stage}_fingerprint")

    def trained(self, name: str):
        """What the training of a model left: its parameters, or the adapter of a pretrained one."""
        expected = self._target_fingerprint if name == "target" else self._draft_fingerprint
        start = getattr(self, f"{name}_start")
        return load_params(self.workdir / name, start.abstract(self.mesh), fingerprint=expected)[0]
