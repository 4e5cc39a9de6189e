"""Everything that gives an item its codes, frozen: vectors, codebooks, collisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from atspeed_jax.ids.codebooks import Codebooks
from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.rqvae import Autoencoder
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.ids.text import SentenceText, TfidfText
from atspeed_jax.ids.vectors import VectorSpace

CODEBOOKS_FILE = "codebooks.safetensors"
LEAST_FURTHER = 8  # codes of a further level
_FORMAT = 1
_REMEDY = "make the ids again"


@dataclass(frozen=True, eq=False)
class IdsModel:
    """How items get codes.

    Attributes:
      config: of the ids.
      space: of the vectors.
      codebooks: of the levels.
      autoencoder: whose latent vectors the codebooks quantize; None if they quantize
        the vectors themselves.
    """

    config: IdsConfig
    space: VectorSpace
    codebooks: Codebooks
    autoencoder: Autoencoder | None = None

    def latents(self, vectors: np.ndarray) -> np.ndarray:
        """Returns what the codebooks quantize, [N, D]."""
        return vectors if self.autoencoder is None else self.autoencoder.encode(vectors)

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the codes [N, L] of vectors, collisions as they come."""
        return self.codebooks.assign(self.latents(vectors))

    def level_sizes(self, codes: np.ndarray) -> tuple[int, ...]:
        """Returns the codes per level that a target should have tokens for.

        They are all codes of the codebooks, since a new item may get one that no item
        has yet. A further level, which has no codebook, has room for twice the largest
        group of items.

        Args:
          codes: [items, L] of a catalog, or [items, L + 1] with further codes.
        """
        sizes = [len(centers) for centers in self.codebooks.centers]
        room = [max(2 * (int(level.max()) + 1), LEAST_FURTHER) for level in codes.T[len(sizes) :]]
        return (*sizes, *room)

    def to_bytes(self) -> bytes:
        """Returns the content of CODEBOOKS_FILE."""
        about = {"format": _FORMAT, **asdict(self.config), "kind": self.space.kind, "width": self.space.width}
        tensors: dict[str, np.ndarray] = {}
        for level, (centers, prices) in enumerate(zip(self.codebooks.centers, self.codebooks.prices, strict=True)):
            tensors |= {f"centers.{level}": centers, f"prices.{level}": prices}
        if isinstance(self.space.encoder, TfidfText):
            text = self.space.encoder
            terms = np.frombuffer("\n".join(text.terms).encode("utf-8"), np.uint8)
            tensors |= {"text.terms": terms, "text.idf": text.idf, "text.components": text.components}
        elif isinstance(self.space.encoder, SentenceText):
            about["sentence_model"] = self.space.encoder.model
        if self.space.bridge is not None:
            tensors["text.bridge"] = self.space.bridge
        if self.autoencoder is not None:
            tensors |= self.autoencoder.to_tensors()
        return save(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {"ids": json.dumps(about)}
        )


def read_model(path: Path) -> IdsModel:
    """Reads CODEBOOKS_FILE.

    Raises:
      IdsError: a missing or damaged file.
    """
    if not path.is_file():
        raise IdsError(f"{path}: no such file; make ids in {path.parent} first")
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})["ids"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if about.pop("format") != _FORMAT:
            raise IdsError(f"{path} is of another version; {_REMEDY}")
        return _model_of(about, tensors)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        if isinstance(error, IdsError):
            raise
        raise IdsError(f"{path} is damaged ({error!r}); {_REMEDY}") from error


def _model_of(about: dict, tensors: Mapping[str, np.ndarray]) -> IdsModel:
    kind, width, sentences = about.pop("kind"), about.pop("width"), about.pop("sentence_model", None)
    config = IdsConfig(**about)
    encoder = None
    if "text.terms" in tensors:
        terms = tuple(bytes(tensors["text.terms"]).decode("utf-8").split("\n"))
        encoder = TfidfText(terms, tensors["text.idf"], tensors["text.components"])
    elif sentences is not None:
        encoder = SentenceText(sentences)
    levels = range(config.levels)
    codebooks = Codebooks(*(tuple(tensors[f"{name}.{level}"] for level in levels) for name in ("centers", "prices")))
    autoencoder = Autoencoder.of_tensors(tensors) if config.method == "rqvae" else None
    return IdsModel(config, VectorSpace(kind, width, encoder, tensors.get("text.bridge")), codebooks, autoencoder)
