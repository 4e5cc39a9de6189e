"""Models and adapters as transformers and PEFT read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.export.directory import appearing
from atspeed_jax.items import tokenizer as item_text
from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.models.hf_config import CONFIG_FILE, hf_config
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.peft_files import save_adapter
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.models.weights import save_weights
from atspeed_jax.utils import files

NO_TOKENIZER = f" without {item_text.TOKENIZER_FILE}, which the base lacks; {item_text.MAKE_ONE}"


def export_hf(
    directory: Path,
    config: LlamaConfig,
    params: Mapping,
    catalog: Catalog,
    *,
    history: int,
    dtype: str,
    base: Pretrained | None = None,
) -> str:
    """Writes a directory that transformers' AutoModelForCausalLM and AutoTokenizer
    load.

    Args:
      directory: new or empty; it appears whole or not at all.
      history: items of the longest prompt.
      dtype: of the stored tensors.
      base: what training began with; its tokenizer gets the item codes as further
        tokens. Without a base, text is item codes alone.

    Returns:
      A note that the model is written without the tokenizer, which the base lacks; or
      "".

    Raises:
      ExportError: a directory that is not empty or cannot be written.
      TokenizerError: codes that cannot join the base's tokens.
    """
    positions, special = prompt_width(catalog, history) + catalog.length, {"bos": catalog.bos, "eos": None, "pad": PAD}
    if base is None:
        tokenizer, settings = item_text.item_tokenizer(catalog), item_text.item_settings(positions)
    else:
        tokenizer, settings = _extended(base, catalog)
        positions = max(positions, base.positions or 0)
        special = {"bos": base.bos, "eos": base.eos, "pad": PAD if base.pad is None else base.pad}
    fields = hf_config(config, dtype=dtype, max_positions=positions, **special)
    with appearing(Path(directory)) as partial:
        save_weights(partial, config, params, dtype=dtype, rows=_rows(catalog))
        files.write_json(partial / CONFIG_FILE, fields)
        return _write_tokenizer(partial, tokenizer, settings)


def export_adapter(directory: Path, base: Pretrained, adapter: Mapping, catalog: Catalog) -> str:
    """Writes the adapter of a pretrained model as PEFT stores it.

    The tokenizer beside it tells AutoPeftModelForCausalLM the number of tokens. Returns
    and raises as `export_hf`.
    """
    tokenizer, settings = _extended(base, catalog)
    base = base.numbered(catalog.vocabulary)
    assert base.lora is not None, "a base with an adapter"
    with appearing(Path(directory)) as partial:
        save_adapter(partial, base.model, base.lora, base.load(), adapter, base.config.directory, rows=_rows(catalog))
        return _write_tokenizer(partial, tokenizer, settings)


def _extended(base: Pretrained, catalog: Catalog) -> tuple[Tokenizer | None, dict]:
    """The base's tokenizer with the item codes (None if it has none), and settings."""
    directory = Path(base.config.directory)
    return item_text.extended_tokenizer(directory, catalog), item_text.extended_settings(directory)


def _rows(catalog: Catalog) -> np.ndarray | None:
    """The embedding row of each token in the files; None for the order of the tokens."""
    return None if catalog.vocabulary is None else catalog.vocabulary.rows


def _write_tokenizer(directory: Path, tokenizer: Tokenizer | None, settings: Mapping) -> str:
    """Writes tokenizer and settings; returns a note if the base has none."""
    if tokenizer is None:
        return NO_TOKENIZER
    files.write_text(directory / item_text.TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    files.write_json(directory / item_text.SETTINGS_FILE, settings)
    return ""
