# pyright: reportMissingImports=false
# torch, transformers and peft are an extra: a checkout is checked without them too.
"""Hugging Face `generate` with our weights and our catalog, to compare our lists with.

torch and transformers come with `pip install -r tests/hugging_face.txt`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.items.catalog import BOS, PAD, Catalog
from atspeed_jax.models.hf_config import CONFIG_FILE, hf_config
from atspeed_jax.models.unroll import restack
from atspeed_jax.models.weights import save_weights
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import Lists, differing
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.utils import files

REQUIREMENTS = "tests/hugging_face.txt"
MOST_POSITIONS = 1 << 17  # longer than any prompt that is measured


def missing(*packages: str) -> str | None:
    """Says which packages are not installed, and what to do; None if all are."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"needs {' and '.join(absent)}: pip install -r {REQUIREMENTS}" if absent else None


class HuggingFace:
    """`generate` of the model in a directory, on a GPU if JAX uses one.

    Args:
      directory: a model as transformers stores it.
      id_tokens: [U, L] sorted distinct ids, which alone a constrained search may give.
      dtype: that the model computes in.
    """

    def __init__(self, directory: Path, id_tokens: np.ndarray, dtype: str = "float32"):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.length, self.dtype = torch, id_tokens.shape[1], getattr(torch, dtype)
        self.device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=self.dtype).eval()
        self.model = cast(Any, model).to(self.device)
        children: dict[tuple[int, ...], set[int]] = {}
        for tokens in id_tokens.tolist():
            for depth in range(self.length):
                children.setdefault(tuple(tokens[:depth]), set()).add(tokens[depth])
        self.children = {prefix: sorted(tokens) for prefix, tokens in children.items()}

    @classmethod
    def of(cls, decoders: Decoders, id_tokens: np.ndarray) -> HuggingFace:
        """The target of our decoders, in the dtype that it computes in.

        Args:
          decoders: ours, in either layout.
          id_tokens: [U, L] sorted distinct ids of their trie.
        """
        config, params = decoders.target, decoders.target_params
        fields = hf_config(config, dtype=config.dtype, max_positions=MOST_POSITIONS, bos=BOS, eos=None, pad=PAD)
        with tempfile.TemporaryDirectory() as directory:
            save_weights(Path(directory), config, params if "layers" in params else restack(params), dtype=config.dtype)
            files.write_json(Path(directory) / CONFIG_FILE, fields)
            return cls(Path(directory), id_tokens, config.dtype)

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
        tokens, valid = (
            self.torch.from_numpy(np.asarray(batch[name], np.int64)).to(self.device) for name in ("tokens", "valid")
        )
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
        ids = found.sequences[:, width:].reshape(-1, beams, self.length).cpu().numpy()
        if beams > 1:
            scores = found.sequences_scores.reshape(-1, beams)
        else:  # greedy search has no sums, and its scores are those of the trie
            logits = self.torch.stack(found.logits, 1)  # generate keeps them in float32 at least
            chosen = found.sequences[:, width:, None]
            scores = logits.log_softmax(-1).gather(-1, chosen).sum((1, 2))[:, None]
        if scores.dtype != self.torch.float64:
            scores = scores.float()
        return Lists(ids, scores.cpu().numpy(), np.ones(tuple(scores.shape), bool))

    @contextlib.contextmanager
    def in_float64(self) -> Iterator[None]:
        """Has the model compute in double precision for the block."""
        self.model.double()
        try:
            yield
        finally:
            self.model.to(self.dtype)


class GenerateDecoder:
    """`generate` held to the catalog, called as our decoders are.

    Args:
      hugging_face: the model.
      id_tokens: [U, L] sorted distinct ids.
      beams: K.
    """

    def __init__(self, hugging_face: HuggingFace, id_tokens: np.ndarray, beams: int):
        self.hugging_face, self.beams = hugging_face, beams
        self.number = {tuple(tokens): number for number, tokens in enumerate(id_tokens.tolist())}

    def __call__(self, prompt: Prompt) -> Result:
        """Runs beam search; the arrays of the result are NumPy's.

        Args:
          prompt: of B users.
        """
        batch = {"tokens": np.asarray(prompt.tokens), "valid": np.asarray(prompt.valid)}
        lists = self.hugging_face(batch, self.beams, trie=True)
        users = len(lists.tokens)
        ids = [[self.number.get(tuple(tokens), -1) for tokens in listed] for listed in lists.tokens.tolist()]
        result: dict[str, Any] = {
            "ids": np.array(ids, np.int32),
            "tokens": lists.tokens,
            "score": lists.score,
            "valid": lists.valid & (np.array(ids) >= 0),
            "target_calls": np.full(users, self.hugging_face.length),
            "given_up": np.zeros(users),
            "faulty": np.zeros(users, int),
            "rounds": np.array(self.hugging_face.length),
        }
        return Result(**result, round_one=None)


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
    from atspeed_jax.export.hugging_face import export_hf  # which needs libraries that the class above does without

    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / name
        export_hf(directory, decoders.target, decoders.target_params, catalog, history=100, dtype="float32")
        count = sum(leaf.size for leaf in jax.tree.leaves(decoders.target_params)) / 1e6
        yield SharedModel(name, count, decoders, decode, HuggingFace(directory, catalog.id_tokens))


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
    return not differing_in_float64(model.hugging_face, model.decoders, some, beams).any()


def differing_in_float64(
    hugging_face: HuggingFace, decoders: Decoders, batch: Mapping[str, np.ndarray], beams: int
) -> np.ndarray:
    """Finds the users whose lists differ between `generate` and our beam search, if both
    compute in float64.

    Args:
      hugging_face, decoders: models of the same logits.
      batch: B prompts, see `HuggingFace.__call__`.
      beams: K.

    Returns:
      [B] bool.
    """
    with hugging_face.in_float64(), jax.enable_x64(True):
        wide = decoders.in_float64().build(Setting.beam_search(beams, "vocab"))
        return differing(hugging_face(batch, beams, trie=True), wide(prompt_of(batch)))
