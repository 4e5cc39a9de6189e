"""The config of a run: data, models, trainings, decoding and measurements."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from atspeed_jax.alignment.align import AlignConfig
from atspeed_jax.alignment.losses import ON_GROUND_TRUTH
from atspeed_jax.alignment.teacher import TeacherConfig
from atspeed_jax.data.files import ReadSettings
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.layouts import read_source
from atspeed_jax.data.simulate import SyntheticConfig
from atspeed_jax.data.sources import Source
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.items.catalog import MAX_LENGTH
from atspeed_jax.items.item_index import IndexSettings
from atspeed_jax.items.spelling import checked_spelling
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.pretrained import PretrainedConfig
from atspeed_jax.models.sizes import LlamaSizes
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.serving.settings import DecodeConfig
from atspeed_jax.training.fit_config import FitConfig, LoopSettings
from atspeed_jax.training.optim import OptimConfig, OptimSettings
from atspeed_jax.training.sharding import MeshConfig
from atspeed_jax.utils import ranges as R


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the models read.

    Attributes:
      source: "synthetic" (made from `synthetic`), or the layout of a data directory
        (`data.layouts`); "auto" for the only layout whose files it has.
      history: how many of a user's newest items a model sees.
      synthetic: sizes of the synthetic data; None for other sources.
      prompt: the text around the items.
      dataset: how the names of the files begin, where several datasets lie in one data
        directory; None for the only one.
      spelling: how codes are written that the index of a data directory gives as
        integers, a pattern per level such as "<s_a_{}>"; None for "<a_{}>", "<b_{}>",
        ...
      levels: codes of an id that are read of the index, the first ones; None for all.
    """

    source: Literal["synthetic", "auto", "atspeed", "lcrec", "lcrec_rows", "minionerec", "p5", "ingested"]
    history: R.Items
    synthetic: SyntheticConfig | None
    prompt: PromptConfig = PromptConfig()
    dataset: str | None = None
    spelling: tuple[str, ...] | None = None
    levels: Annotated[int, R.Range(1, MAX_LENGTH)] | None = None

    def __post_init__(self):
        R.check_ranges(self)
        if self.spelling is not None:
            checked_spelling(self.spelling, len(self.spelling))
        if self.source == "synthetic" and self.synthetic is None:
            raise ValueError("source is 'synthetic' but synthetic is None: give its sizes")

    def read(self, data_dir: Path | str) -> Source:
        """Reads a data directory in the layout that `source` names.

        Raises:
          SourceError: see `data.layouts.read_source`.
        """
        layout = "auto" if self.source == "synthetic" else self.source
        return read_source(layout, data_dir, ReadSettings(self.dataset, IndexSettings(self.spelling, self.levels)))


@dataclasses.dataclass(frozen=True)
class ModelConfig(LlamaSizes):
    """Sizes of a Llama trained from scratch, whose vocabulary the catalog decides."""

    dtype: Literal["float32", "bfloat16"]

    def __post_init__(self):
        R.check_ranges(self)
        self.llama(1)  # complains now, not when the model is built

    def llama(self, vocab_size: int) -> LlamaConfig:
        """The model of these sizes with a vocabulary of `vocab_size` tokens."""
        return LlamaConfig(vocab_size=vocab_size, **vars(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimSettings, LoopSettings):
    """One training in epochs. `fit` turns epochs into steps.

    Attributes:
      epochs: passes over the training data.
      batch_size: rows per update.
      buckets: lengths of the rows, in items.
      shuffle: share of the rows whose items come in random order, in next-item
        training.
      evaluations: how often validation is measured, at even distances.
      valid_users: validation users that are measured each time.
    """

    epochs: Annotated[float, R.Range(0, 100_000, "(]")]
    batch_size: R.BatchSize
    buckets: tuple[R.Items, ...]
    shuffle: R.Share
    evaluations: Annotated[int, R.Range(1, 1_000_000)]
    valid_users: R.Users

    def __post_init__(self):
        R.check_ranges(self)
        R.check_increasing(self, "buckets")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of accumulate={self.accumulate}")

    def fit(self, steps_per_epoch: int) -> FitConfig:
        """The settings of the training loop.

        A training shorter than its warm-up warms up for a tenth of its steps.
        """
        steps = max(1, round(self.epochs * steps_per_epoch))
        warmup = self.warmup_steps if self.warmup_steps < steps else steps // 10
        optim = _shared(self, OptimSettings) | {"warmup_steps": warmup}
        return FitConfig(
            optim=OptimConfig(**optim, steps=steps),
            steps=steps,
            eval_every=max(1, -(-steps // self.evaluations)),
            **_shared(self, LoopSettings),
        )


def _shared(config: TrainConfig, base: type) -> dict:
    """The fields that a config has of one of its base classes."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(base)}


# The stages that are made with a field of ExperimentConfig, or with all fields of a
# section but those listed before it: what `fingerprints.Fingerprints` covers. Other
# fields change no stage.
_MADE_WITH = {
    "data.source": ("data", "target", "teacher", "draft_sft", "draft"),
    "data.synthetic": ("data", "target", "teacher", "draft_sft", "draft"),
    "data.dataset": ("data", "target", "teacher", "draft_sft", "draft"),
    "data.spelling": ("data", "target", "teacher", "draft_sft", "draft"),
    "data.levels": ("data", "target", "teacher", "draft_sft", "draft"),
    "data": ("target", "teacher", "draft_sft", "draft"),
    "target": ("target", "teacher", "draft"),
    "train_target": ("target", "teacher", "draft"),
    "teacher": ("teacher", "draft"),
    "draft": ("draft_sft", "draft"),
    "train_draft": ("draft_sft", "draft"),
    "align": ("draft",),
    "train_align": ("draft",),
    "decode.score_norm": ("teacher", "draft"),
    "decode.unroll": (),
    "decode": ("draft",),
}
SERVED = ("decode", "evaluate", "mesh")  # sections that are chosen whenever a run is served


def made_with(path: str) -> tuple[str, ...]:
    """The stages whose output depends on a field.

    Args:
      path: the field, such as "decode.gamma".
    """
    return next((made for name, made in _MADE_WITH.items() if f"{path}.".startswith(f"{name}.")), ())


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """How a trained pair is served. No field changes what was trained."""

    decode: DecodeConfig
    evaluate: EvaluateConfig
    mesh: MeshConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> ServeConfig:
        """The pair is served as it was trained for."""
        return cls(config.decode, config.evaluate, config.mesh)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that a run depends on, apart from its data directory.

    Attributes:
      name: label of the report.
      data: what the models read.
      target, draft: the models, trained from scratch (ModelConfig) or from a Hugging
        Face Llama (PretrainedConfig). Only the target may have an adapter (lora). The
        draft may also begin as layers of the trained target (TargetLayersConfig).
      train_target, train_draft: their next-item trainings. A draft of the target's
        layers may do without (train_draft=None): its alignment begins with the layers
        as they are. Without train_target (None)
        the target is a Hugging Face model that knows the codes, as it is.
      align, train_align: the alignment of the draft, and its training.
      teacher: what the target decodes for the alignment.
      decode: how the pair decodes; the draft is aligned for it.
      evaluate: what is measured.
      mesh: how devices are used; no result depends on it.

    Raises ValueError for sections that do not go together.
    """

    name: str
    data: DataConfig
    target: ModelConfig | PretrainedConfig
    draft: ModelConfig | PretrainedConfig | TargetLayersConfig
    train_target: TrainConfig | None
    train_draft: TrainConfig | None
    align: AlignConfig
    train_align: TrainConfig
    teacher: TeacherConfig
    decode: DecodeConfig
    evaluate: EvaluateConfig
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        if self.train_target is None and not (isinstance(self.target, PretrainedConfig) and self.target.lora is None):
            raise ValueError(
                "train_target=None: a target that is not trained is a Hugging Face directory without lora; set "
                "target.directory and target.lora=None, or give train_target"
            )
        if isinstance(self.draft, PretrainedConfig) and self.draft.lora is not None:
            raise ValueError("draft.lora: a draft is small and trained whole; set draft.lora=None")
        if isinstance(self.draft, TargetLayersConfig) and isinstance(self.target, ModelConfig):
            self.draft.of(self.target.llama(1))  # complains now; a pretrained target is opened first
        if self.train_draft is None and not isinstance(self.draft, TargetLayersConfig):
            raise ValueError(
                "train_draft=None: a draft that is not layers of its target is trained on next items first; give "
                "train_draft, or set draft.target_layers"
            )
        if self.train_draft is None and self.align.objective in ON_GROUND_TRUTH:
            raise ValueError(
                f"train_draft=None with align.objective={self.align.objective!r}, which reads histories in the lengths "
                "of train_draft.buckets: give train_draft, or another objective"
            )
        if self.teacher.log_probs and self.align.temperature != 1.0:
            raise ValueError(
                f"align.temperature={self.align.temperature} with teacher.log_probs=True: stored log-probabilities "
                "are those of temperature 1.0; set teacher.log_probs=False, and every step computes the teacher's"
            )
        if self.align.objective == "atspeed_s" and self.align.top_k > self.teacher.beams:
            raise ValueError(
                f"align.top_k={self.align.top_k} with teacher.beams={self.teacher.beams}: AtSpeed-S needs the best "
                "top_k of a list, and the teacher stores its beams alone; raise teacher.beams or lower align.top_k"
            )
        if self.data.prompt.kind != "item":
            self._check_instruction()

    def _check_instruction(self):
        kind = f"data.prompt.kind={self.data.prompt.kind!r}"
        if not any(isinstance(model, PretrainedConfig) for model in (self.target, self.draft)):
            raise ValueError(
                f"{kind}: models trained from scratch know item codes alone; give the target a Hugging Face directory, "
                "or set data.prompt.kind='item'"
            )
        for name, train in (("train_target", self.train_target), ("train_draft", self.train_draft)):
            if train is not None and train.shuffle > 0:
                raise ValueError(
                    f"{name}.shuffle={train.shuffle} with {kind}: an instruction lists items in order of time, and one "
                    f"item of a row is predicted; set {name}.shuffle=0.0"
                )
