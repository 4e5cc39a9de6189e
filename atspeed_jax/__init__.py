"""Generative recommendation with speculative beam search, in JAX.

    recommend = atspeed_jax.open_run("runs/quickstart").recommender(k=5)
    found = recommend([[12, 7, 30]])  # found.items, found.scores

Each name of `__all__` is imported when a program first asks for it. `import atspeed_jax`
alone imports neither jax nor a room of the package.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers, which do not follow __getattr__
    from atspeed_jax.decoding.base import Prompt, Result
    from atspeed_jax.decoding.beam_search import beam_search
    from atspeed_jax.decoding.config import SearchConfig
    from atspeed_jax.decoding.draft import ModelDrafter, PopularityDrafter
    from atspeed_jax.decoding.speculative import speculative_beam_search
    from atspeed_jax.items.catalog import Catalog
    from atspeed_jax.items.trie import build_trie
    from atspeed_jax.models.llama import LlamaConfig, LlamaStep
    from atspeed_jax.models.weights import load_weights
    from atspeed_jax.runs.open_run import open_run
    from atspeed_jax.serving.recommender import Recommender

__version__ = "0.1.0"

__all__ = [
    "Catalog",
    "LlamaConfig",
    "LlamaStep",
    "ModelDrafter",
    "PopularityDrafter",
    "Prompt",
    "Recommender",
    "Result",
    "SearchConfig",
    "beam_search",
    "build_trie",
    "load_weights",
    "open_run",
    "speculative_beam_search",
]

_MODULES = {
    "Catalog": "items.catalog",
    "LlamaConfig": "models.llama",
    "LlamaStep": "models.llama",
    "ModelDrafter": "decoding.draft",
    "PopularityDrafter": "decoding.draft",
    "Prompt": "decoding.base",
    "Recommender": "serving.recommender",
    "Result": "decoding.base",
    "SearchConfig": "decoding.config",
    "beam_search": "decoding.beam_search",
    "build_trie": "items.trie",
    "load_weights": "models.weights",
    "open_run": "runs.open_run",
    "speculative_beam_search": "decoding.speculative",
}


def __getattr__(name: str):
    """Import a name of `__all__` from the room that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
