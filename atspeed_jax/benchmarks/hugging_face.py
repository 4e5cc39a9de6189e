# pyright: reportMissingImports=false
# torch, transformers and peft are an extra: a checkout is checked without them too.
"""Hugging Face `generate` with our weights and our catalog, to compare our lists with.

torch and transformers come with `pip install -r tests/hugging_face.txt`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from atspeed_jax.decoding.base import Result
from atspeed_jax.export import export_hf
from atspeed_jax.items.catalog import BOS, Catalog
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import Lists, differing
from atspeed_jax.serving.settings import DecodeConfig, Setting


class HuggingFace:
    """`generate` of the model in a directory.

    Args:
      directory: what `export_hf` wrote.
      catalog: whose ids a constrained search may give.
    """

    def __init__(self, directory: Path, catalog: Catalog):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.length = torch, catalog.length
        self.model = AutoModelForCausalLM.from_pretrained(directory).eval()
        children: dict[tuple[int, ...], set[int]] = {}
        for tokens in catalog.id_tokens.tolist():
            for depth in range(catalog.length):
                children.setdefault(tuple(tokens[:depth]), set()).add(tokens[depth])
        self.children = {prefix: sorted(tokens) for prefix, tokens in children.items()}

    def __call__(self, batch: Mapping[str, np.ndarray], beams: int, *, trie: bool) -> Lists:
        """Runs beam search, or greedy search for one beam.

        Args:
          batch: tokens [B, P] and valid [B, P] of left-padded prompts.
          beams: K.
          trie: whether `prefix_allowed_tokens_fn` holds the search to the catalog.

        Returns:
          K lists per user, best first. Scores are sums of log-softmax over the
          vocabulary. All places are valid.
        """
        tokens, valid = (self.torch.from_numpy(np.asarray(batch[name], np.int64)) for name in ("tokens", "valid"))
        width = tokens.shape[1]
        allowed = lambda _, ids: self.children.get(tuple(ids[width:].tolist()), [BOS])  # noqa: E731 (hot path)
        extra = {"length_penalty": 0.0, "num_return_sequences": beams} if beams > 1 else {"output_logits": True}
        with self.torch.no_grad():
            found = cast(Any, self.model).generate(
                input_ids=tokens,
                attention_mask=valid,
                num_beams=beams,
                do_sample=False,
                max_new_tokens=self.length,
                eos_token_id=None,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_scores=True,
                prefix_allowed_tokens_fn=allowed if trie else None,
                **extra,
            )
        ids = found.sequences[:, width:].reshape(-1, beams, self.length).numpy()
        if beams > 1:
            scores = found.sequences_scores.reshape(-1, beams).numpy()
        else:  # greedy search has no sums, and its scores are those of the trie
            logits = self.torch.stack(found.logits, 1)
            chosen = found.sequences[:, width:, None]
            scores = logits.log_softmax(-1).gather(-1, chosen).sum((1, 2))[:, None].numpy()
        return Lists(ids, scores, np.ones(scores.shape, bool))

    @contextlib.contextmanager
    def in_float64(self) -> Iterator[None]:
        """Has the model compute in double precision for the block."""
        self.model.double()
        try:
            yield
        finally:
            self.model.float()


@dataclasses.dataclass(frozen=True, eq=False)
class SharedModel:
    """One model with one set of weights, ready for our decoders and for `generate`.

    Attributes:
      name: for tables.
      params_m: millions of parameters.
      decoders: ours.
      decode: how speculative search is set.
      hugging_face: `generate`.
    """

    name: str
    params_m: float
    decoders: Decoders
    decode: DecodeConfig
    hugging_face: HuggingFace

    @functools.cached_property
    def unrolled(self) -> Decoders:
        """Our decoders with layers side by side."""
        return self.decoders.unrolled()


@contextlib.contextmanager
def shared_model(name: str, decoders: Decoders, catalog: Catalog, decode: DecodeConfig) -> Iterator[SharedModel]:
    """Hands the target of our decoders to Hugging Face, as launch.export does."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / name
        export_hf(directory, decoders.target, decoders.target_params, catalog, history=100, dtype="float32")
        count = sum(leaf.size for leaf in jax.tree.leaves(decoders.target_params)) / 1e6
        yield SharedModel(name, count, decoders, decode, HuggingFace(directory, catalog))


def same_lists(model: SharedModel, batch: Mapping[str, np.ndarray], beams: int, ours: Result) -> bool:
    """Whether constrained `generate` gives our lists (`serving.lists.differing`).

    Users whose lists differ are decoded again by both sides in float64, where the lists
    must agree (ALGORITHM.md section 5).

    Args:
      model: the model on both sides.
      batch: B prompts, see `HuggingFace.__call__`.
      beams: K.
      ours: our lists of these prompts.
    """
    differ = differing(model.hugging_face(batch, beams, trie=True), ours)
    if not differ.any():
        return True
    some = {name: np.asarray(values)[differ] for name, values in batch.items()}
    with model.hugging_face.in_float64(), jax.enable_x64(True):
        wide = model.decoders.in_float64().build(Setting.beam_search(beams, "vocab"))
        return not differing(model.hugging_face(some, beams, trie=True), wide(prompt_of(some))).any()
