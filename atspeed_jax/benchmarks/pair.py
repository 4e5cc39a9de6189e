"""A trained pair in one small file: models, ids and prompts, without the data libraries.

A machine with an accelerator may lack the libraries that read a run's directory. The
file is in the safetensors format, so no pickle is loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import PAD
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.widen import widen
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig
from atspeed_jax.utils import files

FORMAT = "atspeed_jax pair 1"


class PairError(ValueError):
    """A file that holds no trained pair, or a pair that lacks what is asked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A trained target and its draft, the ids that they decode, and prompts.

    Attributes:
      target, draft: configs of the models.
      target_params, draft_params: their parameters, stacked.
      id_tokens: [U, L] sorted distinct ids.
      id_counts: [U] training interactions of each id.
      users: [N] numbers of validation users.
      tokens: [N, P] their prompts, left-padded with PAD.
      decode: how the run decodes.
      head: [H] that all prompts begin with; H = 0 without an instruction.
    """

    target: LlamaConfig
    target_params: Mapping[str, Any]
    draft: LlamaConfig
    draft_params: Mapping[str, Any]
    id_tokens: np.ndarray
    id_counts: np.ndarray
    users: np.ndarray
    tokens: np.ndarray
    decode: DecodeConfig
    head: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of 16 hexadecimal digits over everything that the file holds."""
        digest = hashlib.sha256(json.dumps(_described(self), sort_keys=True).encode())
        for name, array in sorted(_arrays(self).items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @property
    def first_code(self) -> int:
        """The smallest token of an id."""
        return int(self.id_tokens.min())

    def decoders(self, big: LlamaConfig, *, unrolled: bool) -> Decoders:
        """Makes decoders whose target is as large as `big` and finds the pair's lists.

        Args:
          big: config of the target, `target` itself or one of `widened_config`, in the
            dtype that both models compute in.
          unrolled: layout of the layers of both models.
        """
        trie, narrow = build_trie(self.id_tokens), dataclasses.replace(self.target, dtype=big.dtype)
        target = self.target_params
        if big != narrow:
            target = widen(narrow, target, big, unrolled=unrolled)
        else:
            target = in_dtype(unroll(target) if unrolled else target, big.dtype)
        draft = in_dtype(unroll(self.draft_params) if unrolled else self.draft_params, big.dtype)
        return Decoders(
            target=big,
            target_params=target,
            draft=dataclasses.replace(self.draft, dtype=big.dtype),
            draft_params=draft,
            trie=trie,
            prior=popularity_prior(trie, self.id_tokens, self.id_counts),
            prefixes=prefixes_by_norm(self.id_tokens),
            step=functools.partial(LlamaStep, unrolled=unrolled),
            first_code=self.first_code,
        ).with_head(self.head)

    def batches(self, prompt: int, batch: int, users: int, *, least: int = 3, others: bool = False) -> list[dict]:
        """Makes batches of the first users whose prompts are short enough.

        Args:
          prompt: tokens of a prompt, BOS apart. Shorter prompts are padded.
          batch: users per batch.
          users: number of users in all.
          least: number of batches that are made even if they hold more users.
          others: whether the users come from the end, as far as possible others than
            those of the same call without it.

        Returns:
          Dicts of "tokens" and "valid" [batch, prompt + 1], and "row" [batch].

        Raises:
          PairError: fewer users than a batch holds have so short a prompt.
        """
        lengths = (self.tokens != PAD).sum(1)
        fits = np.flatnonzero(lengths <= prompt + 1)
        if len(fits) < batch:
            raise PairError(
                f"prompt={prompt}, batch={batch}: {len(fits)} of the pair's {len(lengths)} prompts have at most "
                f"{prompt} tokens (they have {lengths.min() - 1} to {lengths.max() - 1}); choose a longer prompt, a "
                "smaller batch, or pack more users"
            )
        count = min(len(fits) // batch, max(least, -(-users // batch)))
        fits = fits[::-1] if others else fits
        chosen = self.tokens[fits[: count * batch]][:, -(prompt + 1) :]
        rows = np.pad(chosen, ((0, 0), (prompt + 1 - chosen.shape[1], 0)), constant_values=PAD)
        order = np.arange(count * batch)
        return [
            {"tokens": rows[own], "valid": rows[own] != PAD, "row": order[own], "user": self.users[fits[order[own]]]}
            for own in order.reshape(count, batch)
        ]


def in_dtype(params, dtype: str):
    """Puts parameters on the device; matrices get the dtype, scales stay float32 at least."""
    wide = jnp.promote_types(dtype, jnp.float32)
    scales = lambda path: getattr(path[-1], "key", None) == "scale"  # noqa: E731
    return jax.tree_util.tree_map_with_path(lambda path, x: jnp.asarray(x, wide if scales(path) else dtype), params)


def write_pair(path: Path, pair: Pair) -> None:
    """Writes a pair into one file, atomically."""
    described = {"format": FORMAT, "pair": json.dumps(_described(pair), sort_keys=True)}
    arrays = {name: np.ascontiguousarray(array) for name, array in _arrays(pair).items()}
    files.write_bytes(path, save(arrays, described))


def read_pair(path: Path) -> Pair:
    """Reads what `write_pair` wrote.

    Raises:
      PairError: no such file, or no pair in it.
    """
    remedy = "write it in the checkout with python -m launch.benchmark --suite=decode --workdir=RUN --pack=FILE"
    if path.is_dir():
        raise PairError(f"{path} is a directory, expected the file of a packed pair; {remedy}")
    if not path.is_file():
        raise PairError(f"there is no file {path}; {remedy}")
    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise PairError(f"{path} is of format {about.get('format')!r}, expected {FORMAT!r}; {remedy}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        fields = json.loads(about["pair"])
        return Pair(
            target=_config(fields["target"]),
            target_params=_nested(arrays, "target/"),
            draft=_config(fields["draft"]),
            draft_params=_nested(arrays, "draft/"),
            decode=DecodeConfig(**fields["decode"] | {"widths": tuple(fields["decode"]["widths"])}),
            **{name: arrays[name] for name in ("id_tokens", "id_counts", "users", "tokens")},
            **{name: arrays[name] for name in ("head",) if name in arrays},
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise PairError(f"{path} is damaged ({error!r}); {remedy}") from error


def _described(pair: Pair) -> dict:
    return {name: dataclasses.asdict(getattr(pair, name)) for name in ("target", "draft", "decode")}


def _arrays(pair: Pair) -> dict[str, np.ndarray]:
    names = ("id_tokens", "id_counts", "users", "tokens", *(["head"] if len(pair.head) else []))
    arrays = {name: np.asarray(getattr(pair, name)) for name in names}
    for name in ("target", "draft"):
        flat = flatten_dict(dict(getattr(pair, f"{name}_params")), sep="/")
        arrays |= {f"{name}/{path}": np.asarray(leaf) for path, leaf in flat.items()}
    return arrays


def _nested(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return unflatten_dict(found, sep="/")


def _config(fields: Mapping[str, Any]) -> LlamaConfig:
    scaling = fields["rope_scaling"]
    values: dict[str, Any] = dict(fields)
    values["rope_scaling"] = None if scaling is None else RopeScalingConfig(**scaling)
    return LlamaConfig(**values)
