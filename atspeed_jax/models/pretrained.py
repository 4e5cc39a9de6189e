"""A Hugging Face Llama from which a run starts.

It is opened and checked before any long work, and loaded when a stage needs it. Item
codes become tokens behind its vocabulary (`Catalog.behind`). Their embedding and head
rows are trained and saved like all other parameters.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from atspeed_jax.items.catalog import PAD
from atspeed_jax.models.hf_config import CONFIG_FILE, HFConfigError, read_hf_config
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import LoraConfig, init_adapter, item_rows, merge_adapter
from atspeed_jax.models.weights import load_weights, weight_files
from atspeed_jax.utils.ranges import PartialShare, Range, check_ranges


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """Which pretrained model to start from, and what of it to train.

    Attributes:
      directory: of a Hugging Face Llama.
      lora: shape of the adapter that is trained beside the item rows; None trains all
        parameters.
      dtype: of activations, and with lora of the frozen weights.
      remat: see `LlamaConfig`.
      remat_policy: see `LlamaConfig`.
      dropout: see `LlamaConfig`.
      bos: the first token of every prompt; None for that of config.json.
      precision: see `LlamaConfig`.

    Raises:
      RangeError: a number is outside its range.
    """

    directory: str
    lora: LoraConfig | None
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    remat_policy: Literal["nothing", "dots"] = "nothing"
    dropout: PartialShare = 0.0
    # Not in repr, so that older fingerprints stay.
    bos: Annotated[int, Range(PAD + 1, 2**31 - 1)] | None = dataclasses.field(default=None, repr=False)
    precision: Literal["highest", "high", "default"] = dataclasses.field(default="highest", repr=False)

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """An opened pretrained model, whose weights are not loaded.

    Attributes:
      config: which model it is.
      model: config of the base.
      bos: the first token of every prompt.
      eos: token or tokens that end a text, as config.json names them.
      positions: longest sequence that the model was trained for, if config.json says
        so.
      fingerprint: of the content of the files and of what is trained; it does not
        depend on the directory's name. "" without the weights (`describe_pretrained`).
    """

    config: PretrainedConfig
    model: LlamaConfig
    bos: int
    eos: int | tuple[int, ...] | None
    positions: int | None
    fingerprint: str

    @property
    def lora(self) -> LoraConfig | None:
        return self.config.lora

    def load(self, shardings=None) -> dict[str, Any]:
        """Loads the base's parameters: in float32, or with lora in the config's dtype.

        Args:
          shardings: see `load_weights`.
        """
        dtype = "float32" if self.lora is None else self.config.dtype
        return load_weights(Path(self.config.directory), self.model, dtype=dtype, shardings=shardings)

    def begin(self, key: jax.Array, base: Mapping, items: int) -> dict[str, Any]:
        """What is trained: an adapter with rows for `items` tokens, or the whole base with these rows added."""
        if self.lora is not None:
            return init_adapter(self.model, self.lora, base, items, key)
        return merge_adapter(base, {"layers": {}} | item_rows(self.model, base, items, key), None)

    def whole(self, trained: Mapping, base: Mapping | None) -> Mapping:
        """The parameters of the plain Llama that `trained` stands for; base is needed with lora alone."""
        if self.lora is None:
            return trained
        assert base is not None, "an adapter stands beside its base"
        return merge_adapter(base, trained, self.lora)


def open_pretrained(config: PretrainedConfig) -> Pretrained:
    """Everything about a pretrained model but its tensors.

    Raises HFConfigError or WeightsError for a directory that does not hold a whole
    Llama, or one without a BOS token that can stand before every prompt.
    """
    directory, found = Path(config.directory), described(config)
    files = weight_files(directory, found.model)
    known = dataclasses.replace(config, directory="", remat_policy="nothing")  # which changes no result
    own = "" if config.bos is None else f"bos={config.bos}"
    own += "" if config.precision == "highest" else f"precision={config.precision}"
    digest = hashlib.sha256((repr(known) + own).encode())
    for path in (directory / CONFIG_FILE, *sorted(set(files.values()))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return dataclasses.replace(found, fingerprint=digest.hexdigest()[:16])


def described(config: PretrainedConfig) -> Pretrained:
    """What config.json alone says of a model, whose weights need not be there: no fingerprint.

    Raises HFConfigError for what is no Llama or has no BOS token that can stand before
    every prompt.
    """
    directory = Path(config.directory)
    model = read_hf_config(directory, dtype=config.dtype, remat=config.remat)
    raw = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    bos = raw.get("bos_token_id") if config.bos is None else config.bos
    eos = raw.get("eos_token_id")
    positions = raw.get("max_position_embeddings", raw.get("max_sequence_length"))  # the first Llamas' name of it
    if type(bos) is not int or not PAD < bos < model.vocab_size:
        raise HFConfigError(
            f"{directory / CONFIG_FILE}: bos_token_id={bos!r}, expected a token in {PAD + 1}..{model.vocab_size - 1}; "
            f"every prompt begins with it, and {PAD} fills up. Set bos of the model in the config (such as bos=1) to "
            "the tokenizer's <s>"
        )
    training = {"dropout": config.dropout, "adapter_dropout": config.lora.dropout if config.lora else 0.0}
    training |= {"remat_policy": config.remat_policy, "precision": config.precision}
    return Pretrained(
        config,
        dataclasses.replace(model, **training),
        bos,
        eos=tuple(eos) if isinstance(eos, list) else eos,
        positions=positions if type(positions) is int else None,
        fingerprint="",
    )
