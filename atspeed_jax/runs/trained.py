"""The trained models of a run, ready to decode."""

from __future__ import annotations

import functools

import numpy as np

from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.trie import popularity_prior
from atspeed_jax.runs.assets import Assets, ModelAssets
from atspeed_jax.runs.fingerprints import Fingerprints
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.training.checkpoint import load_params
from atspeed_jax.training.sharding import replicated
from atspeed_jax.utils.distributed import place


class TrainedModels:
    """The trained parameters of a run, loaded when first asked for, and kept.

    Attributes:
      fingerprints: what the output of each stage depends on.
    """

    def __init__(self, assets: Assets):
        self._assets = assets
        self.fingerprints = Fingerprints(assets, lambda: self.target_params)

    @functools.cached_property
    def target_params(self):
        """The parameters of the whole target. Raises CheckpointError as `load`."""
        return self._assets.target.initialization.full_params(self.load(self._assets.target))

    @functools.cached_property
    def draft_params(self):
        """The parameters of the whole draft. Raises CheckpointError as `load`."""
        return self._assets.draft.initialization.full_params(self.load(self._assets.draft))

    def load(self, model: ModelAssets):
        """Loads what the training of a model left.

        Returns:
          All parameters, or the adapter of a pretrained model.

        Raises:
          CheckpointError: the model is not trained, damaged, or of other settings.
        """
        expected, abstract = self.fingerprints.of(model.name), model.initialization.abstract(self._assets.mesh)
        return load_params(self._assets.workdir / model.name, abstract, fingerprint=expected)[0]

    def decoders(self, draft_params, *, target_params=None) -> Decoders:
        """Both models and the catalog, ready to decode.

        Args:
          draft_params: the draft's parameters; None where no draft model decodes.
          target_params: None for the parameters of the trained target.
        """
        assets, catalog = self._assets, self._assets.dataset.catalog
        counts = np.bincount(catalog.id_of_item, weights=assets.dataset.popularity, minlength=len(catalog.ids))
        prior = popularity_prior(assets.trie, catalog.id_tokens, counts)
        decoders = Decoders(
            target=assets.target.config,
            target_params=self.target_params if target_params is None else target_params,
            draft=assets.draft.config,
            draft_params=draft_params,
            trie=assets.trie,
            prior=place(prior, replicated(assets.mesh)),
            prefixes=prefixes_by_norm(catalog.id_tokens),
            mesh=assets.mesh if assets.mesh.size > 1 else None,
        )
        return decoders.unrolled() if assets.serve.decode.unroll else decoders
