"""Models, decoders, lists and figures of a run, as other programs read them."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.evaluation.quality import HABITS, QUALITY_METHODS
from atspeed_jax.items import tokenizer as item_text
from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.models.hf_config import CONFIG_FILE, hf_config
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.peft_files import save_adapter
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.models.weights import save_weights
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.recommend import Lists, User
from atspeed_jax.serving.settings import Setting
from atspeed_jax.utils import files

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # jax.export takes any other word too, and lowers for nothing that exists
NO_TOKENIZER = f" without {item_text.TOKENIZER_FILE}, which the base lacks; {item_text.MAKE_ONE}"


class ExportError(ValueError):
    """A directory that cannot be exported to, or something that cannot be exported."""


def check_wanted(directory: Path, platforms: Sequence[str]) -> None:
    """Raises ExportError unless the directory is new or empty and the platforms are
    valid.
    """
    _check_new(directory)
    _check_platforms(platforms)


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
    positions, eos = prompt_width(catalog, history) + catalog.length, None
    if base is None:
        tokenizer, settings = item_text.item_tokenizer(catalog), item_text.item_settings(positions)
    else:
        tokenizer, settings = _extended(base, catalog)
        positions, eos = max(positions, base.positions or 0), base.eos
    fields = hf_config(config, dtype=dtype, max_positions=positions, bos=catalog.bos, eos=eos, pad=PAD)
    with _appearing(Path(directory)) as partial:
        save_weights(partial, config, params, dtype=dtype)
        files.write_json(partial / CONFIG_FILE, fields)
        return _write_tokenizer(partial, tokenizer, settings)


def export_adapter(directory: Path, base: Pretrained, adapter: Mapping, catalog: Catalog) -> str:
    """Writes the adapter of a pretrained model as PEFT stores it.

    The tokenizer beside it tells AutoPeftModelForCausalLM the number of tokens. Returns
    and raises as `export_hf`.
    """
    tokenizer, settings = _extended(base, catalog)
    with _appearing(Path(directory)) as partial:
        save_adapter(partial, base.model, base.lora, base.load(), adapter, base.config.directory)  # pyright: ignore
        return _write_tokenizer(partial, tokenizer, settings)


def export_decoder(
    directory: Path,
    decoders: Decoders,
    setting: Setting,
    catalog: Catalog,
    *,
    batch: int,
    history: int,
    platforms: Sequence[str],
) -> None:
    """Writes the jitted decoder of a setting for processes without this code.

    decoder.jax is what `jax.export.deserialize` reads. Its call takes (arrays, tokens,
    valid) and returns {"ids" [B, K], rows of the distinct ids, -1 behind the last one;
    "scores" [B, K]; "target_calls" [B]}. It runs on one device. arrays.safetensors
    holds models and trie, items.parquet item, id and tokens of every item. decoder.json
    says versions, platforms, shapes and dtypes of arguments, and how a prompt is made.

    Args:
      batch: B.
      history: items of the longest prompt.
      platforms: one or more of PLATFORMS, each once.

    Raises:
      ExportError: as `export_hf`; an unknown platform; a setting that draws.
    """
    _check_platforms(platforms)
    if selection_of(mode := setting.search.mode).draws:
        raise ExportError(f"mode={mode!r}: it draws, and the artifact takes no keys; export a strict decoder")
    drafts = {"draft": ("draft_params",), "popularity": ("prior",), "none": ()}[setting.drafter]
    needed = {name: getattr(decoders, name) for name in ("target_params", "trie", *drafts)}
    paths, tree = jax.tree_util.tree_flatten_with_path(needed)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in paths}

    @jax.jit
    def decode(arrays, tokens, valid):
        taken = jax.tree.unflatten(tree, [arrays[name] for name in names])
        result = dataclasses.replace(decoders, mesh=None, head=None, **taken).build(setting)(Prompt(tokens, valid))
        ids = jnp.where(result.valid, result.ids, -1)
        return {"ids": ids, "scores": result.score, "target_calls": result.target_calls}

    names = list(arrays)
    shape = (batch, prompt_width(catalog, history))
    takes = {
        "arrays": {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()},
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "valid": jax.ShapeDtypeStruct(shape, bool),
    }
    items = {
        "item": np.arange(catalog.items),
        "id": catalog.id_of_item,
        "tokens": list(catalog.tokens(np.arange(catalog.items)).reshape(catalog.items, -1)),
    }
    with _appearing(Path(directory)) as partial:
        exported = jax.export.export(decode, platforms=tuple(platforms))(*takes.values())
        about = _about(exported, takes) | _prompt(catalog) | {"setting": setting.label, "K": setting.search.beams}
        files.write_bytes(partial / "decoder.jax", bytes(exported.serialize()))
        save_file(arrays, partial / "arrays.safetensors")
        pq.write_table(pa.table(items), partial / "items.parquet")
        files.write_json(partial / "decoder.json", about)


def _about(exported: jax.export.Exported, takes: Mapping) -> dict:
    """What a program must know to call the decoder, for decoder.json. takes: its
    arguments, in order.
    """

    def described(leaf):
        return {"shape": list(leaf.shape), "dtype": leaf.dtype.name}

    arguments = jax.tree.map(described, takes)
    arguments["arrays"] = {
        "is": "all of arrays.safetensors by name, as safetensors.flax.load_file gives them",
        "arrays": arguments["arrays"],
    }
    arguments["tokens"] |= {"is": "a prompt per row"}
    arguments["valid"] |= {"is": "true where a token belongs to the prompt, false where it is padding"}
    returns = jax.tree.unflatten(exported.out_tree, [described(leaf) for leaf in exported.out_avals])
    returns["ids"] |= {"is": "rows of the distinct ids, best first, as in items.parquet; -1 where there are no more"}
    returns["scores"] |= {"is": "log-probability of each"}
    returns["target_calls"] |= {"is": "forward passes of the target, of each user"}
    return {
        "versions": {name: version(name) for name in ("jax", "safetensors")},
        "calling_convention_version": exported.calling_convention_version,
        "platforms": list(exported.platforms),
        "call": f"call({', '.join(arguments)})",
        "arguments": arguments,
        "returns": returns,
    }


def _prompt(catalog: Catalog) -> dict:
    """How a prompt is made, for decoder.json."""
    known = {"pad": PAD, "bos": catalog.bos}
    if catalog.instruction is None:
        return {"prompt": "padding on the left, then bos, then the tokens of the user's items, oldest first"} | known
    items = "the tokens of the user's items, oldest first, with separator between two"
    prompt = f"padding on the left, then head, {items}, tail; without items empty alone"
    return {"prompt": prompt} | known | vars(catalog.instruction)


def export_lists(directory: Path, lists: Lists, dataset: Dataset) -> None:
    """Writes lists.parquet, a row per user with test items; raises as `export_hf`.

    Columns: "user"; "history", the items known before the test split, oldest first;
    "items", the list (`recommend.lists_of`), best first, with "scores"; "next", the
    user's test items.
    """
    users = held_out_users(dataset, "test")
    with _appearing(Path(directory)) as partial:
        items, scores = lists([User(*one) for one in zip(users.users, users.histories, strict=True)])
        found = {
            "user": users.users,
            "history": users.histories,
            "items": [row[row >= 0] for row in items],
            "scores": [of_list[row >= 0] for row, of_list in zip(items, scores, strict=True)],
            "next": users.truths,
        }
        pq.write_table(pa.table(found), partial / "lists.parquet")


def export_figures(directory: Path, report: Mapping) -> None:
    """Writes a report's figures as tables; raises as `export_hf`.

    decoding.parquet has the report's decoding rows, quality.parquet a row per method,
    habit and figure: "method", "kind", "figure", "value", "low", "high".
    """
    rows = []
    for method in QUALITY_METHODS:
        for kind in HABITS:
            entry = report["quality"][method][kind]
            for figure, (low, high) in entry.get("intervals", {}).items():
                row = {"method": method, "kind": kind, "figure": figure, "value": entry[figure]}
                rows.append(row | {"low": low, "high": high})
    decoding = [row | {"widths": [str(width) for width in row["widths"] or []]} for row in report["decoding"]]
    with _appearing(Path(directory)) as partial:
        pq.write_table(pa.Table.from_pylist(decoding), partial / "decoding.parquet")
        pq.write_table(pa.Table.from_pylist(rows), partial / "quality.parquet")


def _check_new(directory: Path) -> None:
    """Raises ExportError for a directory that is not empty, or a file of that name."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} exists and is not empty; give a new directory, or delete it")


def _check_platforms(platforms: Sequence[str]) -> None:
    """Raises ExportError unless `platforms` are one or more of PLATFORMS, each once."""
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms or len(set(platforms)) < len(platforms):
        wrong = f"{unknown[0]!r} is none" if unknown else "none is given" if not platforms else "one is named twice"
        raise ExportError(
            f"platforms={','.join(platforms)}: {wrong}; expected one or more of {', '.join(PLATFORMS)}, each once"
        )


@contextlib.contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """Yields a directory to write into; it gets its final name when all is written."""
    directory = directory.absolute()
    _check_new(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(directory.with_name(f".{directory.name}.lock")) as locked:
            if not locked:
                raise ExportError(
                    f"{directory} is being written by another process; wait for it, or give another directory"
                )
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                yield partial
                partial.replace(directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)  # what a full disk has of it would keep the disk full
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{directory} cannot be written ({error}); give another directory") from error


def _extended(base: Pretrained, catalog: Catalog) -> tuple[Tokenizer | None, dict]:
    """The base's tokenizer with the item codes (None if it has none), and settings."""
    directory = Path(base.config.directory)
    return item_text.extended_tokenizer(directory, catalog), item_text.extended_settings(directory)


def _write_tokenizer(directory: Path, tokenizer: Tokenizer | None, settings: Mapping) -> str:
    """Writes tokenizer and settings; returns a note if the base has none."""
    if tokenizer is None:
        return NO_TOKENIZER
    files.write_text(directory / item_text.TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    files.write_json(directory / item_text.SETTINGS_FILE, settings)
    return ""
