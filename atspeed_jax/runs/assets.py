"""What the stages of a run work with: data, catalog, devices and untrained models."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Literal

from jax.sharding import Mesh

from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.data.dataset import Dataset, DatasetError, load_dataset
from atspeed_jax.data.sources import Source, synthesize
from atspeed_jax.items.placement import check_known
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.pretrained import Pretrained, PretrainedConfig, open_pretrained
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.runs.checks import (
    check_batches,
    check_mesh,
    check_same_data,
    check_serving,
    check_settings,
    check_splits,
)
from atspeed_jax.runs.experiment import ExperimentConfig, ModelConfig, ServeConfig
from atspeed_jax.serving.catalogs import catalog_for, check_positions
from atspeed_jax.training.initialization import Initialization, from_pretrained, from_scratch
from atspeed_jax.training.sharding import make_mesh, replicated, tree_shardings
from atspeed_jax.utils.distributed import place


class Assets:
    """Data, devices and untrained models of one experiment in one working directory.

    Everything is loaded when it is first asked for, and kept.

    Attributes:
      config: what the run is trained for. Fingerprints cover it alone.
      workdir: the working directory, one folder per stage.
      data_dir: where the interactions are read from; None for synthetic or stored data.
      serve: how the models decode.
      is_trained: True for a run where nothing more is trained.
      target, draft: the two models.
    """

    def __init__(self, config: ExperimentConfig, workdir: Path, data_dir: Path | None, serve: ServeConfig | None):
        """Reads nothing.

        Args:
          serve: how a trained pair decodes; None for a run that may still be trained,
            which decodes as its config says.

        Raises:
          DatasetError: a data directory is given, but the config makes its data.
        """
        if config.data.source == "synthetic" and data_dir is not None:
            raise DatasetError(
                f"config.data.source='synthetic' reads no directory, but {data_dir} is given: leave --data_dir out, or "
                "take a config whose data.source is a layout"
            )
        self.config, self.workdir, self.data_dir = config, Path(workdir), data_dir
        self.serve, self.is_trained = serve or ServeConfig.of(config), serve is not None
        self.target, self.draft = ModelAssets(self, "target"), ModelAssets(self, "draft")

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The stored dataset, as this run's models read it.

        A run that may still be trained makes synthetic data again and compares them with
        the stored data. A trained run is served from the stored data alone, unless a
        data directory is given, which is compared.

        Raises:
          DatasetError: the stored data are not what config and data directory give.
          ValueError: see `checked`.
        """
        directory = self.workdir / "data"
        dataset = load_dataset(directory)
        stored_alone = self.is_trained and self.data_dir is None
        if not stored_alone and self.source is not None:
            check_same_data(dataset, directory, self.source, str(self.data_dir or "config.data.synthetic"))
        return self.checked(dataset)

    def checked(self, dataset: Dataset) -> Dataset:
        """The dataset as this run's models read it. Writes nothing.

        All complaints come here, before any long work.

        Raises:
          DatasetError: the dataset cannot be trained and measured on.
          ValueError: settings do not fit the dataset or the devices.
        """
        check_splits(dataset)
        base = self.base_of("target")
        if base is not None:
            catalog = catalog_for(self.pretrained.values(), dataset.catalog, self.config.data.prompt)
            if self.config.train_target is None:
                check_known(catalog, Path(base.config.directory))
            check_positions(self.pretrained.values(), catalog, self.config.data.history)
            dataset = dataclasses.replace(dataset, catalog=catalog)
        if self.is_trained:
            check_serving(self.serve, dataset)
        else:
            check_settings(self.config, dataset)
            check_batches(self.config, self.mesh)
        models = {model.name: model.config_for(dataset.catalog.vocab_size) for model in (self.target, self.draft)}
        check_mesh(models, self.mesh)
        return dataset

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices of all processes.

        Raises:
          ShardingError: serve.mesh does not fit the devices.
        """
        return make_mesh(self.serve.mesh)

    @functools.cached_property
    def pretrained(self) -> dict[str, Pretrained]:
        """The models that start from a Hugging Face directory, by name.

        Raises:
          ValueError: a directory holds no Llama.
        """
        settings = {model.name: model.settings for model in (self.target, self.draft)}
        return {name: open_pretrained(c) for name, c in settings.items() if isinstance(c, PretrainedConfig)}

    def base_of(self, name: str) -> Pretrained | None:
        """The pretrained model whose vocabulary a model has.

        A model trained from scratch has the vocabulary of the other model's base.

        Returns:
          None if both models are trained from scratch.
        """
        return self.pretrained.get(name) or next(iter(self.pretrained.values()), None)

    @functools.cached_property
    def source(self) -> Source | None:
        """What config and data directory give.

        None for stored data whose data directory is not given again.
        """
        if self.config.data.source == "synthetic":
            assert self.config.data.synthetic is not None, "DataConfig has checked it"
            return synthesize(self.config.data.synthetic)
        return None if self.data_dir is None else self.config.data.read(self.data_dir)

    @functools.cached_property
    def trie(self):
        """The trie of all items, on every device."""
        return place(build_trie(self.dataset.catalog.id_tokens), replicated(self.mesh))

    @functools.cached_property
    def tree_context(self):
        """What alignment reads of the trie, on every device."""
        context = tree_context(self.trie, self.dataset.catalog.id_tokens)
        return place(context, replicated(self.mesh))


class ModelAssets:
    """One of the two models of a run.

    Attributes:
      name: "target" or "draft".
      settings: its section of the config.
    """

    def __init__(self, assets: Assets, name: Literal["target", "draft"]):
        self.name, self._assets = name, assets
        config = assets.config
        self.settings = config.target if name == "target" else config.draft

    @property
    def pretrained(self) -> Pretrained | None:
        """The base of a pretrained model; None for a model trained from scratch."""
        return self._assets.pretrained.get(self.name)

    @property
    def origin(self):
        """What stands for the untrained model in a fingerprint."""
        return self.settings if self.pretrained is None else self.pretrained.fingerprint

    @property
    def config(self) -> LlamaConfig:
        """The sizes of the model with the vocabulary of the stored dataset."""
        return self.config_for(self._assets.dataset.catalog.vocab_size)

    def config_for(self, vocab_size: int) -> LlamaConfig:
        """The sizes of the model with a vocabulary of `vocab_size` tokens.

        Raises:
          ValueError: a draft of layers that the target does not have.
        """
        if isinstance(self.settings, TargetLayersConfig):
            return self.settings.of(self._assets.target.config_for(vocab_size))
        if self.pretrained is not None:
            return dataclasses.replace(self.pretrained.model, vocab_size=vocab_size)
        assert isinstance(self.settings, ModelConfig), "a model that is trained from scratch"
        return self.settings.llama(vocab_size)

    def as_it_is(self):
        """The parameters of a pretrained model that is not trained, in its dtype."""
        assert self.pretrained is not None, "ExperimentConfig has checked it"
        model = self.pretrained.numbered(self._assets.dataset.catalog.vocabulary)
        shardings = tree_shardings(param_shapes(model.model), self._assets.mesh)
        return model.load(shardings, dtype=model.config.dtype)

    @functools.cached_property
    def initialization(self) -> Initialization:
        """How training starts, and what is trained. A pretrained model is loaded.

        For a draft of the target's layers, see `TrainedModels.start`.
        """
        if self.pretrained is not None:
            return from_pretrained(self.pretrained, self._assets.dataset.catalog, self._assets.mesh)
        return from_scratch(self.config)
