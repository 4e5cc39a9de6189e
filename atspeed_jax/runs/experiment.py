"""A whole run as one frozen dataclass: what data, which models, how they are trained, decoded and measured."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from atspeed_jax.alignment.align import AlignConfig
from atspeed_jax.alignment.teacher import TeacherConfig
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.simulate import SyntheticConfig
from atspeed_jax.evaluation.evaluate import EvaluateConfig
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.pretrained import PretrainedConfig
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.serving.settings import DecodeConfig
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.training.sharding import MeshConfig
from atspeed_jax.utils import ranges as R


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read. source: "synthetic" (made from `synthetic`) or "atspeed" (a directory in the AtSpeed text layout,
    given by --data_dir). history: newest items of a user that a model sees. prompt: what stands around them.
    """

    source: Literal["synthetic", "atspeed"]
    history: R.Items
    synthetic: SyntheticConfig | None
    prompt: PromptConfig = PromptConfig()

    def __post_init__(self):
        R.check_ranges(self)
        if self.source == "synthetic" and self.synthetic is None:
            raise ValueError("source is 'synthetic' but synthetic is None: give its sizes")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of a Llama whose vocabulary the catalogue decides (see `LlamaConfig`)."""

    hidden_size: R.HiddenSize
    intermediate_size: R.IntermediateSize
    layers: R.Layers
    heads: R.Heads
    kv_heads: R.Heads
    head_dim: R.HeadDim
    rope_theta: R.RopeTheta
    norm_eps: R.NormEps
    tied_embeddings: bool
    dropout: R.PartialShare
    dtype: Literal["float32", "bfloat16"]
    remat: bool
    rope_scaling: RopeScalingConfig | None = None
    remat_policy: Literal["nothing", "dots"] = "nothing"
    precision: Literal["highest", "high", "default"] = "highest"

    def __post_init__(self):
        R.check_ranges(self)
        self.llama(1)  # its complaints now, not when the model's turn comes

    def llama(self, vocab_size: int) -> LlamaConfig:
        return LlamaConfig(vocab_size=vocab_size, **vars(self))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run in epochs; `fit` turns them into steps.

    buckets: row lengths in items. evaluations: how often validation is measured, spread evenly. patience: evaluations
    without improvement before it stops, 0 never. valid_users: validation users measured each time. average: decay of
    the moving average of the parameters, which is then what is kept; 0 for none. shuffle: share of the rows whose items
    come in random order, in next-item training. accumulate: see `FitConfig`.
    """

    epochs: Annotated[float, R.Range(0, 100_000, "(]")]
    batch_size: R.BatchSize
    buckets: tuple[R.Items, ...]
    learning_rate: R.LearningRate
    warmup_steps: R.Warmup
    weight_decay: R.WeightDecay
    clip_norm: R.ClipNorm
    b1: R.PartialShare
    b2: R.PartialShare
    average: R.PartialShare
    shuffle: R.Share
    evaluations: Annotated[int, R.Range(1, 1_000_000)]
    patience: R.Patience
    checkpoint_every: R.Updates
    log_every: R.Updates
    valid_users: R.Users
    seed: R.Seed
    accumulate: R.BatchSize = 1

    def __post_init__(self):
        R.check_ranges(self)
        R.check_increasing(self, "buckets")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of accumulate={self.accumulate}")

    def fit(self, steps_per_epoch: int) -> FitConfig:
        """The loop's settings.

        A run shorter than its warm-up warms up for a tenth of it.
        """
        steps = max(1, round(self.epochs * steps_per_epoch))
        optim = OptimConfig(
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps if self.warmup_steps < steps else steps // 10,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            b1=self.b1,
            b2=self.b2,
            average=self.average,
            steps=steps,
        )
        return FitConfig(
            optim=optim,
            steps=steps,
            eval_every=max(1, -(-steps // self.evaluations)),
            patience=self.patience,
            checkpoint_every=self.checkpoint_every,
            log_every=self.log_every,
            seed=self.seed,
            accumulate=self.accumulate,
        )


# Which stages are made with a field of ExperimentConfig, or with a section but for what stands above it: the
# fingerprints of `assets` in words. What is not here no stage is made with.
_MADE_WITH = {
    "data.source": ("data", "target", "teacher", "draft_sft", "draft"),
    "data.synthetic": ("data", "target", "teacher", "draft_sft", "draft"),
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
SERVED = ("decode", "evaluate", "mesh")  # sections of ExperimentConfig that are chosen anew whenever a run is served


def made_with(path: str) -> tuple[str, ...]:
    """The stages whose output depends on a field, such as "decode.gamma"."""
    return next((made for name, made in _MADE_WITH.items() if f"{path}.".startswith(f"{name}.")), ())


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """How a trained pair is served. Nothing here changes what was trained, whatever that was trained for."""

    decode: DecodeConfig
    evaluate: EvaluateConfig
    mesh: MeshConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> ServeConfig:
        """As it was trained for."""
        return cls(**{name: getattr(config, name) for name in SERVED})


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything a run depends on besides its data directory.

    name labels the report. target and draft are made from scratch, or begin with a Hugging Face Llama; an adapter
    (lora) is for the target alone. mesh: how devices are used; no result depends on it.
    """

    name: str
    data: DataConfig
    target: ModelConfig | PretrainedConfig
    draft: ModelConfig | PretrainedConfig
    train_target: TrainConfig
    train_draft: TrainConfig
    align: AlignConfig
    train_align: TrainConfig
    teacher: TeacherConfig
    decode: DecodeConfig
    evaluate: EvaluateConfig
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        if isinstance(self.draft, PretrainedConfig) and self.draft.lora is not None:
            raise ValueError("draft.lora: a draft is small and trained whole; set draft.lora=None")
        if self.teacher.log_probs and self.align.temperature != 1.0:
            raise ValueError(
                f"align.temperature={self.align.temperature} with teacher.log_probs: what is stored holds at "
                "temperature 1.0 only; set teacher.log_probs=False, and the teacher is asked again in every step"
            )
        if self.align.objective == "atspeed_s" and self.align.top_k > self.teacher.beams:
            raise ValueError(
                f"align.top_k={self.align.top_k} with teacher.beams={self.teacher.beams}: AtSpeed-S looks at the best "
                "top_k of a list, and the teacher keeps no more than its beams; raise beams or lower top_k"
            )
        if self.data.prompt.kind == "instruction":
            self._check_instruction()

    def _check_instruction(self):
        if not any(isinstance(model, PretrainedConfig) for model in (self.target, self.draft)):
            raise ValueError(
                "data.prompt.kind='instruction': models made from scratch know item codes alone; begin the target with "
                "a Hugging Face directory, or set it to 'item'"
            )
        for name in ("train_target", "train_draft"):
            if (share := getattr(self, name).shuffle) > 0:
                raise ValueError(
                    f"{name}.shuffle={share} with data.prompt.kind='instruction': items come in chronological order "
                    "there, and one of a row is predicted; set it to 0.0"
                )
