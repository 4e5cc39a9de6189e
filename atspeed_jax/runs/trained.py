"""What is read of a run: its settings, its data, and its trained models, ready to decode."""

from __future__ import annotations

import functools
from pathlib import Path

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import shared_head
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.grown_catalog import counts_of_ids
from atspeed_jax.items.trie import Trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.runs.assets import Assets, ModelAssets
from atspeed_jax.runs.experiment import ExperimentConfig, ServeConfig
from atspeed_jax.runs.fingerprints import Fingerprints
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.training.checkpoint import load_params
from atspeed_jax.training.initialization import Initialization, from_target
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
        if self._assets.config.train_target is None:
            return self._assets.target.as_it_is()
        return self._assets.target.initialization.full_params(self.load(self._assets.target))

    @functools.cached_property
    def draft_params(self):
        """The parameters of the whole draft. Raises CheckpointError as `load`."""
        return self._assets.draft.initialization.full_params(self.load(self._assets.draft))

    def start(self, model: ModelAssets) -> Initialization:
        """How the training of a model starts, and what is trained.

        A draft of the target's layers needs the trained target.

        Raises:
          CheckpointError: as `load`.
        """
        if isinstance(model.settings, TargetLayersConfig):
            layers = model.settings.numbers(self._assets.target.config)
            return from_target(model.config, self.target_params, layers)
        return model.initialization

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
        """Both models and the catalog, ready to decode; an instruction's head is read here.

        Args:
          draft_params: the draft's parameters; None where no draft model decodes.
          target_params: None for the parameters of the trained target.
        """
        assets, catalog = self._assets, self._assets.dataset.catalog
        prior = popularity_prior(assets.trie, catalog.id_tokens, counts_of_ids(catalog, assets.dataset.popularity))
        decoders = Decoders(
            target=assets.target.config,
            target_params=self.target_params if target_params is None else target_params,
            draft=assets.draft.config,
            draft_params=draft_params,
            trie=assets.trie,
            prior=place(prior, replicated(assets.mesh)),
            prefixes=prefixes_by_norm(catalog.id_tokens),
            mesh=assets.mesh if assets.mesh.size > 1 else None,
            first_code=catalog.first_code,
        )
        decoders = decoders.unrolled() if assets.serve.decode.unroll else decoders
        return decoders.with_head(shared_head(catalog))


class RunView:
    """A run as it is read, whether it may still be trained (`Run`) or not (`TrainedRun`).

    Data and parameters are loaded when they are first asked for, and kept.

    Attributes:
      assets: data, devices and untrained models.
      models: trained parameters, and the fingerprints of the stages.
    """

    def __init__(self, assets: Assets):
        self.assets, self.models = assets, TrainedModels(assets)

    @property
    def workdir(self) -> Path:
        return self.assets.workdir

    @property
    def config(self) -> ExperimentConfig:
        """What the run is, or will be, trained for."""
        return self.assets.config

    @property
    def serve(self) -> ServeConfig:
        """How the models decode."""
        return self.assets.serve

    @property
    def dataset(self) -> Dataset:
        """The stored dataset. Raises DatasetError or ValueError as `Assets.dataset`."""
        return self.assets.dataset

    @property
    def catalog(self) -> Catalog:
        """The items and their ids."""
        return self.dataset.catalog

    @property
    def trie(self) -> Trie:
        """The trie of all ids of the catalog, on every device."""
        return self.assets.trie

    @property
    def target_model(self) -> LlamaConfig:
        """The sizes of the target."""
        return self.assets.target.config

    @property
    def draft_model(self) -> LlamaConfig:
        """The sizes of the draft."""
        return self.assets.draft.config

    @property
    def target_params(self):
        """The target's parameters. Raises CheckpointError as `TrainedModels.load`."""
        return self.models.target_params

    @property
    def draft_params(self):
        """The draft's parameters. Raises CheckpointError as `TrainedModels.load`."""
        return self.models.draft_params

    def decoders(self, draft_params, *, target_params=None) -> Decoders:
        """Models and catalog, ready to decode: see `TrainedModels.decoders`."""
        return self.models.decoders(draft_params, target_params=target_params)
