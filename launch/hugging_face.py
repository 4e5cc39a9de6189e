"""Hugging Face `generate` on our weights and our catalogue: what the benchmark and the tests compare with.

The one module outside the tests that imports torch and transformers (`pip install -r tests/peers.txt`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    """`generate` of the model in a directory, constrained to a catalogue by `prefix_allowed_tokens_fn` or not."""

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

    def __call__(self, batch: Mapping[str, np.ndarray], beams: int, *, trie: bool) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [B, K, L], scores [B, K]), best first; scores are sums of log-softmax over the vocabulary."""
        tokens, valid = (self.torch.from_numpy(np.asarray(batch[name], np.int64)) for name in ("tokens", "valid"))
        width = tokens.shape[1]
        allowed = lambda _, ids: self.children.get(tuple(ids[width:].tolist()), [BOS])  # noqa: E731 (hot path)
        extra = {"length_penalty": 0.0, "num_return_sequences": beams} if beams > 1 else {"output_logits": True}
        with self.torch.no_grad():
            found = self.model.generate(
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
            return ids, found.sequences_scores.reshape(-1, beams).numpy()
        logits = self.torch.stack(found.logits, 1)  # greedy search has no sums, and its scores are the trie's
        chosen = found.sequences[:, width:, None]
        return ids, logits.log_softmax(-1).gather(-1, chosen).sum((1, 2))[:, None].numpy()

    @contextlib.contextmanager
    def in_float64(self) -> Iterator[None]:
        """The model in double precision, for lists that differ by rounding."""
        self.model.double()
        try:
            yield
        finally:
            self.model.float()


@dataclasses.dataclass(frozen=True, eq=False)
class Peers:
    """One model in both worlds."""

    name: str
    params_m: float
    decoders: Decoders
    decode: DecodeConfig
    theirs: HuggingFace

    @functools.cached_property
    def unrolled(self) -> Decoders:
        return self.decoders.unrolled()


@contextlib.contextmanager
def in_both_worlds(name: str, decoders: Decoders, catalog: Catalog, decode: DecodeConfig) -> Iterator[Peers]:
    """Hands a model over as `launch.export` does, so the weights are the same ones."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / name
        export_hf(directory, decoders.target, decoders.target_params, catalog, history=100, dtype="float32")
        count = sum(leaf.size for leaf in jax.tree.leaves(decoders.target_params)) / 1e6
        yield Peers(name, count, decoders, decode, HuggingFace(directory, catalog))


def same_lists(peers: Peers, batch: Mapping[str, np.ndarray], beams: int, ours: Result) -> bool:
    """Whether constrained `generate` gives our lists (`lists.differing`); users whose lists differ are decoded again by
    both in float64 (ALGORITHM.md section 5), where they must agree."""
    differ = different(*peers.theirs(batch, beams, trie=True), ours)
    if not differ.any():
        return True
    some = {name: np.asarray(values)[differ] for name, values in batch.items()}
    with peers.theirs.in_float64(), jax.enable_x64(True):
        wide = peers.decoders.in_float64().build(Setting.beam_search(beams, "vocab"))
        return not different(*peers.theirs(some, beams, trie=True), wide(prompt_of(some))).any()


def different(tokens: np.ndarray, scores: np.ndarray, ours: Result) -> np.ndarray:
    """[B] users whose list or scores differ; the lists of `generate` have no invalid place."""
    return differing(Lists(tokens, scores, np.ones(scores.shape, bool)), ours)
