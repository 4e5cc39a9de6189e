"""What was trained as other programs read it: a Hugging Face directory, an adapter as PEFT stores it, the compiled
decoder with its arrays, the lists of test users and the figures of a report as tables."""

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
from atspeed_jax.evaluation.quality import HABITS, QUALITY_METHODS
from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.items.tokenizer import (
    MAKE_ONE,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    extended_settings,
    extended_tokenizer,
    item_settings,
    item_tokenizer,
)
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
NO_TOKENIZER = f" without {TOKENIZER_FILE}, which the base lacks; {MAKE_ONE}"


class ExportError(ValueError):
    """A directory that cannot be exported to, or something that cannot be exported."""


def check_wanted(directory: Path, platforms: Sequence[str]) -> None:
    """Raises ExportError unless the directory is new or empty and the platforms are names of `PLATFORMS`, one or more,
    each once; to be called before long work."""
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
    """Writes a directory that transformers' AutoModelForCausalLM and AutoTokenizer load.

    history: items of the longest prompt. base: what training began with, whose tokenizer gets the item codes as further
    tokens; without one text is item codes alone. Returns what a user should know: of a base without tokenizer.json, as
    which the model is then written, else "". The directory appears whole or not at all. Raises ExportError if it exists
    and is not empty, or cannot be written, and TokenizerError if codes cannot join the base's tokens.
    """
    positions, eos = prompt_width(catalog, history) + catalog.length, None
    if base is None:
        tokenizer, settings = item_tokenizer(catalog), item_settings(positions)
    else:
        place = Path(base.config.directory)
        tokenizer, settings = extended_tokenizer(place, catalog), extended_settings(place)
        positions, eos = max(positions, base.positions or 0), base.eos
    fields = hf_config(config, dtype=dtype, max_positions=positions, bos=catalog.bos, eos=eos, pad=PAD)
    with _appearing(Path(directory)) as partial:
        save_weights(partial, config, params, dtype=dtype)
        files.write_json(partial / CONFIG_FILE, fields)
        return _write_tokenizer(partial, tokenizer, settings)


def export_adapter(directory: Path, base: Pretrained, adapter: Mapping, catalog: Catalog) -> str:
    """Writes the adapter of a pretrained model as PEFT stores it, with the tokenizer by which AutoPeftModelForCausalLM
    knows how many tokens there are. Returns and raises as `export_hf`."""
    place = Path(base.config.directory)
    tokenizer, settings = extended_tokenizer(place, catalog), extended_settings(place)
    with _appearing(Path(directory)) as partial:
        save_adapter(partial, base.model, base.lora, base.load(), adapter, base.config.directory)
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
    """Writes the jitted decoder of a setting, for a process that has jax and safetensors but none of this code.

    decoder.jax: what `jax.export.deserialize` reads; its call takes (arrays, tokens, valid) and returns {"ids" [B, K],
    rows of the distinct ids, -1 where there are no more, "scores" [B, K], "target_calls" [B]}. arrays.safetensors: its
    first argument, models and trie. items.parquet: item, id and tokens of every item. decoder.json: versions,
    platforms, every argument with its shape and dtype, and how a prompt is made. It runs on one device, wherever it was
    exported.

    batch: B. history: items that a prompt has room for. platforms: of `PLATFORMS`. Raises ExportError as `export_hf`
    does, and for an unknown platform or a setting that draws.
    """
    _check_platforms(platforms)
    if setting.search.mode != "strict":
        raise ExportError(
            f"mode={setting.search.mode!r}: it draws, and the artifact takes no keys; export a strict decoder"
        )
    drafts = {"draft": ("draft_params",), "popularity": ("prior",), "none": ()}[setting.drafter]
    needed = {name: getattr(decoders, name) for name in ("target_params", "trie", *drafts)}
    paths, tree = jax.tree_util.tree_flatten_with_path(needed)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in paths}

    @jax.jit
    def decode(arrays, tokens, valid):
        taken = jax.tree.unflatten(tree, [arrays[name] for name in names])
        result = dataclasses.replace(decoders, mesh=None, **taken).build(setting)(Prompt(tokens, valid))
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
    """What a program must know to call the decoder, for decoder.json. takes: its arguments, in order."""

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
    """Writes lists.parquet, a row per user with test items: "user", "history", what was known of them, oldest first,
    "items", their list, best first, with "scores", and "next", their test items. lists: see `recommend.lists_of`.
    ExportError as in `export_hf`."""
    users = held_out_users(dataset, "test")
    with _appearing(Path(directory)) as partial:
        items, scores = lists([User(*one) for one in zip(users.users, users.histories, strict=True)])
        found = {
            "user": users.users,
            "history": users.histories,
            "items": [row[row >= 0] for row in items],
            "scores": [own[row >= 0] for row, own in zip(items, scores, strict=True)],
            "next": users.truths,
        }
        pq.write_table(pa.table(found), partial / "lists.parquet")


def export_figures(directory: Path, report: Mapping) -> None:
    """Writes a report's figures as tables: decoding.parquet, its rows, and quality.parquet, a row per method, habit and
    figure ("method", "kind", "figure", "value", "low", "high"). ExportError as in `export_hf`."""
    rows = []
    for method in QUALITY_METHODS:
        for kind in HABITS:
            own = report["quality"][method][kind]
            for figure, (low, high) in own.get("intervals", {}).items():
                row = {"method": method, "kind": kind, "figure": figure, "value": own[figure]}
                rows.append(row | {"low": low, "high": high})
    decoding = [row | {"widths": [str(width) for width in row["widths"] or []]} for row in report["decoding"]]
    with _appearing(Path(directory)) as partial:
        pq.write_table(pa.Table.from_pylist(decoding), partial / "decoding.parquet")
        pq.write_table(pa.Table.from_pylist(rows), partial / "quality.parquet")


def _check_new(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} exists and is not empty; give a new directory, or delete it")


def _check_platforms(platforms: Sequence[str]) -> None:
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms or len(set(platforms)) < len(platforms):
        wrong = f"{unknown[0]!r} is none" if unknown else "none is given" if not platforms else "one is named twice"
        raise ExportError(
            f"platforms={','.join(platforms)}: {wrong}; expected one or more of {', '.join(PLATFORMS)}, each once"
        )


@contextlib.contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A directory to write into that takes its final name when all is written."""
    directory = directory.absolute()
    _check_new(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(directory.with_name(f".{directory.name}.lock")) as own:
            if not own:
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


def _write_tokenizer(directory: Path, tokenizer: Tokenizer | None, settings: Mapping) -> str:
    """Tells if there is none to write."""
    if tokenizer is None:
        return NO_TOKENIZER
    files.write_text(directory / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    files.write_json(directory / SETTINGS_FILE, settings)
    return ""
