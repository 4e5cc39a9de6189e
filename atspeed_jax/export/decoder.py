"""The compiled decoder, for processes without this code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.decoding.base import Prompt, SharedHead, select_rows
from atspeed_jax.decoding.selection import selection_of
from atspeed_jax.decoding.shared_head import shares_head
from atspeed_jax.export.directory import ExportError, appearing
from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import Setting
from atspeed_jax.utils import files

_TOKENS = "token_of_row"  # array of the tokens that the numbers of the tokenizer are
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # jax.export takes any other word too, and lowers for nothing that exists


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

    A shared head (`Decoders.with_head`) lies among the arrays as it was read. A prompt that
    begins otherwise gets ids of -1, scores NaN and 0 calls.

    Args:
      batch: B.
      history: items of the longest prompt.
      platforms: one or more of PLATFORMS, each once.

    Raises:
      ExportError: as `export_hf`; an unknown platform; a setting that draws.
    """
    check_platforms(platforms)
    if selection_of(mode := setting.search.mode).draws:
        raise ExportError(f"mode={mode!r}: it draws, and the artifact takes no keys; export a strict decoder")
    paths, tree = jax.tree_util.tree_flatten_with_path(_needed(decoders, setting))
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in paths}
    names, vocabulary, head = list(arrays), catalog.vocabulary, decoders.head
    if vocabulary is not None:  # the caller has the numbers of the tokenizer
        arrays[_TOKENS] = vocabulary.tokens(np.arange(len(vocabulary.rows)))

    @jax.jit
    def decode(arrays, tokens, valid):
        tokens = tokens if vocabulary is None else arrays[_TOKENS][tokens]
        taken = jax.tree.unflatten(tree, [arrays[name] for name in names])
        if head is not None:
            taken["head"] = SharedHead(np.asarray(head.tokens), **{"draft": ()} | taken["head"])
        return _decoded(dataclasses.replace(decoders, mesh=None, **taken), setting, Prompt(tokens, valid))

    shape = (batch, prompt_width(catalog, history))
    takes = {
        "arrays": {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()},
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "valid": jax.ShapeDtypeStruct(shape, bool),
    }
    with appearing(Path(directory)) as partial:
        exported = jax.export.export(decode, platforms=tuple(platforms))(*takes.values())
        about = _about(exported, takes) | _prompt(catalog) | {"setting": setting.label, "K": setting.search.beams}
        about |= {} if head is None else _shared(catalog, head)
        files.write_bytes(partial / "decoder.jax", bytes(exported.serialize()))
        save_file(arrays, partial / "arrays.safetensors")
        pq.write_table(_items(catalog), partial / "items.parquet")
        files.write_json(partial / "decoder.json", about)


def _needed(decoders: Decoders, setting: Setting) -> dict:
    """What a setting reads of decoders, which lies among the arrays."""
    drafts = {"draft": ("draft_params",), "popularity": ("prior",), "none": ()}[setting.drafter]
    needed = {name: getattr(decoders, name) for name in ("target_params", "trie", *drafts)}
    if (head := decoders.head) is not None:
        needed["head"] = {"target": head.target} | ({"draft": head.draft} if setting.drafter == "draft" else {})
    return needed


def _decoded(decoders: Decoders, setting: Setting, prompt: Prompt) -> dict[str, jax.Array]:
    """What the program returns, by name."""
    result = decoders.build(setting)(prompt)
    ids = jnp.where(result.valid, result.ids, -1)
    found = {"ids": ids, "scores": result.score, "target_calls": result.target_calls}
    if decoders.head is None:
        return found
    # A compiled program raises nothing, so a prompt that begins otherwise gets no list.
    shares = shares_head(prompt.tokens, prompt.valid, np.asarray(decoders.head.tokens), jnp)
    nothing = {"ids": -1, "scores": jnp.nan, "target_calls": 0}
    return select_rows(shares, found, {name: jnp.full_like(x, nothing[name]) for name, x in found.items()})


def _items(catalog: Catalog) -> pa.Table:
    """The items with their ids and the tokens of these."""
    items = np.arange(catalog.items)
    return pa.table({"item": items, "id": catalog.id_of_item, "tokens": list(_numbers(catalog, catalog.tokens(items)))})


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
    """How a prompt is made, for decoder.json. Its tokens are the tokenizer's."""
    known = {"pad": PAD, "bos": int(_numbers(catalog, np.array(catalog.bos)))}
    if catalog.instruction is None:
        begins, alone = ("bos, then ", "") if catalog.begins else ("", "; without items bos alone")
        prompt = f"padding on the left, then {begins}the tokens of the user's items, oldest first{alone}"
        return {"prompt": prompt} | known
    items = "the tokens of the user's items, oldest first, with separator between two"
    prompt = f"padding on the left, then head, {items}, tail; without items empty alone"
    pieces = {name: np.array(piece, np.int32) for name, piece in vars(catalog.instruction).items()}
    return {"prompt": prompt} | known | {name: _numbers(catalog, piece).tolist() for name, piece in pieces.items()}


def _shared(catalog: Catalog, head: SharedHead) -> dict:
    """What all prompts begin with, for decoder.json."""
    text = (
        "what every prompt begins with; it lies in the arrays as the models have read it. A prompt that begins "
        "otherwise, or ends with it, gets ids -1, scores NaN and 0 target_calls"
    )
    return {"shared_head": {"tokens": _numbers(catalog, np.asarray(head.tokens)).tolist(), "is": text}}


def _numbers(catalog: Catalog, tokens: np.ndarray) -> np.ndarray:
    """The tokenizer's numbers of tokens."""
    return tokens if catalog.vocabulary is None else catalog.vocabulary.rows[tokens]


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises ExportError unless `platforms` are one or more of PLATFORMS, each once."""
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms or len(set(platforms)) < len(platforms):
        wrong = f"{unknown[0]!r} is none" if unknown else "none is given" if not platforms else "one is named twice"
        raise ExportError(
            f"platforms={','.join(platforms)}: {wrong}; expected one or more of {', '.join(PLATFORMS)}, each once"
        )
