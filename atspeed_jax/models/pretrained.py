"""A Hugging Face model from which a run starts.

It is opened and checked before any long work, and loaded when a stage needs it. Item
codes that its tokenizer does not know become tokens behind its vocabulary. Their
embedding and head rows are trained and saved like all other parameters. Codes that the
tokenizer knows keep their rows (`items.placement`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np

from atspeed_jax.items.vocabulary import Vocabulary
from atspeed_jax.models.hf_config import CONFIG_FILE, HFConfigError, read_hf_config
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import LoraConfig, init_adapter, item_rows, merge_adapter
from atspeed_jax.models.weights import load_weights, weight_files
from atspeed_jax.utils.ranges import PartialShare, Range, check_ranges


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """Which pretrained model to start from, and what of it to train.

    Attributes:
      directory: of a Hugging Face model (`models.llama_config.MODEL_TYPES`).
      lora: shape of the adapter that is trained beside the item rows; None trains all
        parameters.
      dtype: of activations, and with lora of the frozen weights.
      remat: see `LlamaConfig`.
      remat_policy: see `LlamaConfig`.
      dropout: see `LlamaConfig`.
      bos: the first token of every prompt; None for that of config.json, if the
        tokenizer begins texts with it.
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
    bos: Annotated[int, Range(0, 2**31 - 1)] | None = dataclasses.field(default=None, repr=False)
    precision: Literal["highest", "high", "default"] = dataclasses.field(default="highest", repr=False)

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """An opened pretrained model, whose weights are not loaded.

    Attributes:
      config: which model it is.
      model: config of the base.
      bos: row of the token that begins a prompt, and that is the prompt of no items.
      eos: token or tokens that end a text, as config.json names them.
      pad: token of padding, if config.json names one.
      positions: longest sequence that the model was trained for, if config.json says
        so.
      fingerprint: of the content of the files and of what is trained; it does not
        depend on the directory's name. "" without the weights (`describe_pretrained`).
      rows: [W] int32, the row of the files that each token is (`Vocabulary`); None for
        the order of the files.
      stored_rows: rows of the embedding in the files.
    """

    config: PretrainedConfig
    model: LlamaConfig
    bos: int
    eos: int | tuple[int, ...] | None
    pad: int | None
    positions: int | None
    fingerprint: str
    rows: np.ndarray | None = dataclasses.field(default=None, compare=False)
    stored_rows: int = 0

    def numbered(self, vocabulary: Vocabulary | None) -> Pretrained:
        """The model, its tokens in the order of a vocabulary.

        Args:
          vocabulary: None for the order of the files. Rows behind those of the files
            become zero.
        """
        if vocabulary is None:
            return self
        rows = vocabulary.loaded_rows
        return dataclasses.replace(self, rows=rows, model=dataclasses.replace(self.model, vocab_size=len(rows)))

    @property
    def lora(self) -> LoraConfig | None:
        return self.config.lora

    def load(self, shardings=None, *, dtype: str | None = None) -> dict[str, Any]:
        """Loads the base's parameters.

        Args:
          shardings: see `load_weights`.
          dtype: of the parameters; None for what training begins with: float32, or with
            lora the config's dtype.
        """
        dtype = dtype or ("float32" if self.lora is None else self.config.dtype)
        stored = dataclasses.replace(self.model, vocab_size=self.stored_rows)
        how = {"dtype": dtype, "shardings": shardings, "rows": self.rows}
        return load_weights(Path(self.config.directory), stored, **how)

    def init_trainable(self, key: jax.Array, base: Mapping, items: int) -> dict[str, Any]:
        """Makes what is trained: an adapter, or the base, with rows for item tokens.

        Args:
          key: random key.
          base: parameters of the base.
          items: number of item tokens.
        """
        if self.lora is not None:
            return init_adapter(self.model, self.lora, base, items, key)
        return merge_adapter(base, {"layers": {}} | item_rows(self.model, base, items, key), None)

    def full_params(self, trained: Mapping, base: Mapping | None) -> Mapping:
        """Returns the parameters of a plain Llama that computes what was trained.

        Args:
          trained: an adapter, or all parameters.
          base: parameters of the base; read only if `trained` is an adapter.
        """
        if self.lora is None:
            return trained
        assert base is not None, "an adapter stands beside its base"
        return merge_adapter(base, trained, self.lora)


def open_pretrained(config: PretrainedConfig) -> Pretrained:
    """Opens a pretrained model and checks its files, without loading tensors.

    Args:
      config: which model.

    Raises:
      HFConfigError: config.json is of no model that can be read, or names neither BOS
        nor EOS.
      WeightsError: the directory does not hold the weights that config.json describes.
    """
    directory, found = Path(config.directory), describe_pretrained(config)
    files = weight_files(directory, found.model)
    # Neither the name of the directory nor the remat policy changes a result.
    known = dataclasses.replace(config, directory="", remat_policy="nothing")
    # Fields that repr omits; their defaults add nothing, so older fingerprints stay.
    added = "" if config.bos is None else f"bos={config.bos}"
    added += "" if config.precision == "highest" else f"precision={config.precision}"
    digest = hashlib.sha256((repr(known) + added).encode())
    for path in (directory / CONFIG_FILE, *sorted(set(files.values()))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return dataclasses.replace(found, fingerprint=digest.hexdigest()[:16])


def describe_pretrained(config: PretrainedConfig) -> Pretrained:
    """Reads config.json of a pretrained model; the weights may be missing.

    Args:
      config: which model.

    Returns:
      The model, without a fingerprint.

    Raises:
      HFConfigError: see `open_pretrained`.
    """
    directory = Path(config.directory)
    model = read_hf_config(directory, dtype=config.dtype, remat=config.remat)
    raw = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    eos = raw.get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
    bos = next((one for one in (config.bos, raw.get("bos_token_id"), first) if one is not None), None)
    positions = raw.get("max_position_embeddings", raw.get("max_sequence_length"))  # the first Llamas' name of it
    if type(bos) is not int or not 0 <= bos < model.vocab_size:
        raise HFConfigError(
            f"{directory / CONFIG_FILE}: bos_token_id={bos!r}, expected a token in 0..{model.vocab_size - 1}; a prompt "
            "of no items begins with it. Set bos of the model in the config (such as bos=1) to the tokenizer's <s>"
        )
    training = {"dropout": config.dropout, "adapter_dropout": config.lora.dropout if config.lora else 0.0}
    training |= {"remat_policy": config.remat_policy, "precision": config.precision}
    return Pretrained(
        config,
        dataclasses.replace(model, **training),
        bos,
        eos=tuple(eos) if isinstance(eos, list) else eos,
        pad=raw.get("pad_token_id"),
        positions=positions if type(positions) is int else None,
        fingerprint="",
        stored_rows=model.vocab_size,
    )
