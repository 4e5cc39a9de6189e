"""A trained model as other programs read it: a Hugging Face directory, or an adapter as PEFT stores it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from atspeed_jax import files
from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.items.tokenizer import BOS_TEXT, PAD_TEXT, TOKENIZER_FILE, extended_tokenizer, item_tokenizer
from atspeed_jax.models.hf_config import CONFIG_FILE, hf_config
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import save_adapter
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.models.weights import save_weights

TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


class ExportError(ValueError):
    """A directory that cannot be exported to."""


def export_hf(
    directory: Path,
    config: LlamaConfig,
    params: Mapping,
    catalog: Catalog,
    *,
    history: int,
    dtype: str,
    base: Path | None = None,
) -> None:
    """Writes a directory that transformers' AutoModelForCausalLM and AutoTokenizer load.

    history: items of the longest prompt. base: the Hugging Face directory that training began with, whose tokenizer
    gets the item codes as further tokens; without one, or if that has no tokenizer.json, text is item codes alone or
    the tokenizer is left out. The directory appears whole or not at all. Raises ExportError if it exists and is not
    empty, or cannot be written, and TokenizerError if codes cannot join the base's tokens.
    """
    positions = 1 + catalog.length * (history + 1)
    fields = hf_config(config, dtype=dtype, max_positions=positions, bos=catalog.bos, eos=None, pad=PAD)
    tokenizer = item_tokenizer(catalog) if base is None else extended_tokenizer(base, catalog)
    with _appearing(Path(directory)) as partial:
        save_weights(partial, config, params, dtype=dtype)
        files.write_json(partial / CONFIG_FILE, fields)
        if tokenizer is not None:
            files.write_text(partial / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
        _tokenizer_settings(partial, base, positions)


def export_adapter(directory: Path, base: Pretrained, adapter: Mapping) -> None:
    """Writes the adapter of a pretrained model as PEFT stores it; ExportError as in `export_hf`."""
    with _appearing(Path(directory)) as partial:
        save_adapter(partial, base.model, base.lora, base.load(), adapter, base.config.directory)


@contextlib.contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A directory to write into that takes its final name when all is written."""
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} exists and is not empty; give a new directory, or delete it")
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, directory)
    except OSError as error:
        raise ExportError(f"{directory} cannot be written ({error}); give another directory") from error


def _tokenizer_settings(directory: Path, base: Path | None, positions: int) -> None:
    """What AutoTokenizer wants to know beside the tokenizer: the base's own settings, or those of item codes alone."""
    if base is not None:
        for name in TOKENIZER_SETTINGS:
            if (base / name).is_file():
                shutil.copyfile(base / name, directory / name)
        return
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": positions, "padding_side": "left"}
    settings |= {"pad_token": PAD_TEXT, "bos_token": BOS_TEXT, "clean_up_tokenization_spaces": False}
    files.write_json(directory / TOKENIZER_SETTINGS[0], settings)
