"""Fingerprints: what the output of a stage depends on, as a hash.

Output with another fingerprint is refused and never overwritten.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atspeed_jax.alignment.teacher_files import COMPLETE
from atspeed_jax.alignment.teacher_prompts import PROMPT_RULE
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.runs.assets import Assets
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.directory import METADATA_FILE
from atspeed_jax.utils.files import read_json

# The order of fields in the fingerprints of stored runs, for classes whose fields have
# changed places since. Fields that are not here follow.
_STORED_ORDER = {
    "TrainConfig": (
        *("epochs", "batch_size", "buckets", "learning_rate", "warmup_steps", "weight_decay", "clip_norm", "b1", "b2"),
        *("average", "shuffle", "evaluations", "patience", "checkpoint_every", "log_every", "valid_users", "seed"),
    ),
}
# Defaults of fields in the fingerprints of stored runs, where a default has changed since.
_STORED_DEFAULTS = {"DecodeConfig": {"unroll": False}}


def fingerprint(*parts) -> str:
    """A hash of 16 hexadecimal digits over configs and other fingerprints.

    A field of a config at its default does not count: output that was made before the
    field existed stays valid. Of a default that has changed the first one counts.
    """
    return hashlib.sha256(_described(parts).encode()).hexdigest()[:16]


def _described(part) -> str:
    if isinstance(part, tuple):
        return f"({', '.join(map(_described, part))}{',' * (len(part) == 1)})"
    if not dataclasses.is_dataclass(part):
        return repr(part)
    defaults = _STORED_DEFAULTS.get(type(part).__qualname__, {})
    counted = {
        field.name: _described(value)
        for field in dataclasses.fields(part)
        if (value := getattr(part, field.name)) != defaults.get(field.name, field.default)
    }
    known = _STORED_ORDER.get(type(part).__qualname__, ())
    ordered = [*(name for name in known if name in counted), *(name for name in counted if name not in known)]
    return f"{type(part).__qualname__}({', '.join(f'{name}={counted[name]}' for name in ordered)})"


def recorded_fingerprint(directory: Path) -> str | None:
    """The fingerprint of a stage's complete output.

    Args:
      directory: WORKDIR/STAGE.

    Returns:
      None if the output is not complete.

    Raises:
      ValueError: the record of the output is damaged.
    """
    for name in (METADATA_FILE, COMPLETE):
        if (directory / name).exists():
            remedy = f"delete {directory} to make it again"
            return read_json(directory / name, remedy, {"fingerprint": str})["fingerprint"]
    return None


class Fingerprints:
    """The fingerprint of each stage of a run that has a record.

    A fingerprint covers what the run is trained for (its config), never how it is
    served.
    """

    def __init__(self, assets: Assets, target_params: Callable[[], Any]):
        """
        Args:
          target_params: gives the trained target's parameters.
        """
        self._assets, self._config, self._target_params = assets, assets.config, target_params

    def of(self, stage: str) -> str:
        """The fingerprint of the stage "target", "teacher", "draft_sft" or "draft"."""
        match stage:
            case "target":
                return self.target
            case "teacher":
                return self.teacher
            case "draft_sft":
                return self.draft_sft
            case "draft":
                return self.draft
        raise ValueError(f"stage {stage!r} has no fingerprint; expected target, teacher, draft_sft or draft")

    @property
    def target(self) -> str:
        assets = self._assets
        return fingerprint(assets.dataset.fingerprint, self.prompt, assets.target.origin, self._config.train_target)

    @functools.cached_property
    def target_params(self) -> str:
        """The hash of the trained target's parameters."""
        return fingerprint_of(self._target_params())

    @functools.cached_property
    def teacher(self) -> str:
        c = self._config
        return fingerprint(self.target_params, PROMPT_RULE, c.teacher, self.prompt, c.decode.score_norm)

    @property
    def teacher_parts(self) -> dict[str, str]:
        """What `teacher` depends on by name, for messages."""
        c = self._config
        parts = {"target": self.target_params[:16], "data": self._assets.dataset.fingerprint}
        parts |= {"users' histories": fingerprint(self.prompt), "score_norm": c.decode.score_norm}
        return parts | {name: str(value) for name, value in dataclasses.asdict(c.teacher).items()}

    @property
    def draft_sft(self) -> str:
        assets, origin = self._assets, self._assets.draft.origin
        if isinstance(origin, TargetLayersConfig):
            origin = (origin, self.target_params)
        return fingerprint(assets.dataset.fingerprint, self.prompt, origin, self._config.train_draft)

    @property
    def draft(self) -> str:
        c = self._config
        decode = dataclasses.replace(c.decode, unroll=False)  # the layout of the layers changes no draft
        return fingerprint(self.draft_sft, self.teacher, c.align, c.train_align, decode)

    @property
    def prompt(self):
        """What the models read of a user: number of items, the text around them, and
        which rows of a pretrained model the tokens are.
        """
        history, catalog = self._config.data.history, self._assets.dataset.catalog
        further = () if catalog.instruction is None else (catalog.instruction,)
        further += () if catalog.begins else ("no BOS",)
        if catalog.vocabulary is not None:
            further += (hashlib.sha256(catalog.vocabulary.rows.astype("<i4").tobytes()).hexdigest()[:16],)
        return (history, *further) if further else history
