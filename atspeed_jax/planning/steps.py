"""The steps of a run as shapes on a mesh: programs, and arrays on the devices.

Nothing is allocated but the trie of the catalog.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from atspeed_jax.alignment.align import make_align_loss
from atspeed_jax.alignment.ground_truth import make_ground_truth_loss
from atspeed_jax.alignment.losses import ON_GROUND_TRUTH
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.decoding.base import Layout, Prompt
from atspeed_jax.decoding.config import SearchConfig, prefixes_by_norm, resolve_widths
from atspeed_jax.decoding.row_compaction import most_passes, rows_at_a_time
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep
from atspeed_jax.models.lora import TARGETS
from atspeed_jax.models.pretrained import Pretrained, PretrainedConfig, describe_pretrained
from atspeed_jax.models.target_layers import TargetLayersConfig
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.planning.decode_passes import Pair, first_round, later_round
from atspeed_jax.planning.estimate import Pass
from atspeed_jax.runs.experiment import ExperimentConfig, TrainConfig
from atspeed_jax.serving.decoders import Decoders, computed_head
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.sharded import lower_on_mesh, splits_models
from atspeed_jax.training import sharding
from atspeed_jax.training.initialization import Initialization, from_base, from_scratch
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.step import initializer, make_train_step

STEPS_PER_EPOCH = 1000  # any number: only the schedule of the learning rate depends on it


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One program of a run.

    Attributes:
      name: for tables.
      rows: users or training rows of a batch, over all devices.
      lower: lowers the program for compilation.
      on_device: trees of shapes that lie on the devices while the program runs, by kind
        ("parameters", "optimizer", "other").
      trained: the shapes that are trained.
      cache: shapes of the caches of decoding.
      passes: the forward and backward passes of the program.
    """

    name: str
    rows: int
    lower: Callable[[], Any]
    on_device: dict[str, Any]
    trained: Any
    cache: Any
    passes: tuple[Pass, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model of the run.

    Attributes:
      config: its config.
      start: how its training starts.
      served: shapes of its parameters when it serves.
      held: shapes of what else of its base lies on the devices.
    """

    config: LlamaConfig
    start: Initialization
    served: Any
    held: Any


def describe_models(config: ExperimentConfig) -> dict[str, Pretrained]:
    """Describes the models that start from a Hugging Face directory.

    The directory may lack the weights.
    """
    models = {"target": config.target, "draft": config.draft}
    return {name: describe_pretrained(one) for name, one in models.items() if isinstance(one, PretrainedConfig)}


class Steps:
    """The steps of a run on a mesh."""

    def __init__(self, config: ExperimentConfig, catalog: Catalog, pretrained: dict[str, Pretrained], mesh: Mesh):
        self.config, self.catalog, self.mesh = config, catalog, mesh
        self.models: dict[str, Model] = {}
        for name in ("target", "draft"):  # a draft may be layers of the target
            self.models[name] = self._model(name, pretrained.get(name))

    def _model(self, name: str, pretrained: Pretrained | None) -> Model:
        vocabulary = self.catalog.vocab_size
        if pretrained is None:
            settings = getattr(self.config, name)
            of_target = isinstance(settings, TargetLayersConfig)
            model = settings.of(self.models["target"].config) if of_target else settings.llama(vocabulary)
            start = from_scratch(model)
            return Model(model, start, start.abstract(self.mesh), ())
        pretrained = pretrained.numbered(self.catalog.vocabulary)
        dtype = jnp.float32 if pretrained.lora is None else pretrained.config.dtype
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), param_shapes(pretrained.model))
        base = sharding.abstract_on(shapes, self.mesh)
        start = from_base(pretrained, base, self.catalog.new_codes)
        served = jax.eval_shape(pretrained.full_params, start.abstract(self.mesh), base)
        model = dataclasses.replace(pretrained.model, vocab_size=vocabulary)
        return Model(model, start, sharding.abstract_on(served, self.mesh), _replaced(pretrained, base))

    @functools.cached_property
    def trie(self):
        return build_trie(self.catalog.id_tokens)

    @functools.cached_property
    def prefixes(self):
        return prefixes_by_norm(self.catalog.id_tokens)

    @property
    def _prompt(self) -> int:
        """Counts the tokens of the longest prompt."""
        return prompt_width(self.catalog, self.config.data.history)

    def train_target(self) -> Step:
        """Describes next-item training of the target."""
        model, train = self.models["target"], self.config.train_target
        assert train is not None, "plan has checked it"
        loss = training_loss(model.start.model, self.catalog.length, train.shuffle, model.start.lora)
        trains = "all" if model.start.lora is None else "adapter"
        tokens = self._prompt + self.catalog.length
        step = self._fit("train target", train, loss, model.start.init, model.start.frozen, self._windows())
        return dataclasses.replace(step, passes=(self._pass(model.config, train, tokens, tokens, trains),))

    def align_draft(self) -> Step:
        """Describes alignment of the draft.

        The target and the draft before alignment lie on the devices in any case, even
        if the objective does not read them.
        """
        c, draft, target = self.config, self.models["draft"], self.models["target"]
        context = self._whole(tree_context(self.trie, self.catalog.id_tokens))
        frozen = {"sft": draft.served, "target": target.served, "context": context}
        model, teacher = draft.config, target.config
        if c.align.objective in ON_GROUND_TRUTH:
            tokens = n_out = self._prompt + self.catalog.length
            batch, asked = self._windows(), c.align.objective != "sft"
            loss = make_ground_truth_loss(c.align, model, teacher)
        else:
            n_out = 1 + (c.teacher.beams + 1) * max(self.catalog.length - 2, 0)
            tokens, batch, asked = self._prompt + n_out - 1, self._beams(), not c.teacher.log_probs
            loss = make_align_loss(c.align, model, teacher, self._widths(c.teacher.beams), c.decode.budget)
        step = self._fit("align draft", c.train_align, loss, lambda key, frozen: frozen["sft"], frozen, batch)
        step.on_device["other"] = (step.on_device["other"], draft.held, target.held)
        passes = [self._pass(model, c.train_align, tokens, n_out, "all")]
        passes += [self._pass(teacher, c.train_align, tokens, n_out, "nothing")] * asked
        return dataclasses.replace(step, passes=tuple(passes))

    def decode(self) -> Step:
        """Describes speculative beam search at the largest K of the evaluation."""
        c, target, draft = self.config, self.models["target"], self.models["draft"]
        trie, setting = self._whole(self.trie), Setting.strict("draft", max(c.evaluate.beams), c.decode)
        step, served, there = LlamaStep, (target.served, draft.served), (target.held, draft.held)
        if c.decode.unroll:  # copies, beside which a run keeps the stacks
            step, there = functools.partial(LlamaStep, unrolled=True), (*there, *served)
            lay_out = functools.partial(unroll, join=not splits_models(self.mesh))
            served = [sharding.abstract_on(jax.eval_shape(lay_out, one), self.mesh) for one in served]
        models = target.config, served[0], draft.config, served[1]
        decoders = Decoders(*models, trie, (), self.prefixes, step, self.mesh, self.catalog.first_code)
        decode, params = decoders.program(setting)
        rows, width = c.evaluate.batch_size, self._prompt
        tokens, valid = (jax.ShapeDtypeStruct((rows, width), dtype) for dtype in (jnp.int32, bool))
        prompt = Prompt(cast(Any, tokens), cast(Any, valid))
        search = setting.search
        widths = self._widths(search.beams)
        layout = Layout(width, (1, *(max(search.beams, size) for size in widths)))
        users = -(-rows // self.mesh.shape["data"])
        caches = [step(one.config) for one in (target, draft)]
        first = decoders.first_logit(search.score_norm)
        pair = Pair(*(computed_head(one.config, first) for one in (target, draft)))
        return Step(
            "decode",
            rows,
            lambda: lower_on_mesh(decode, params, trie, prompt, self.mesh),
            {"parameters": served, "optimizer": (), "other": (trie, *there)},
            (),
            jax.eval_shape(lambda: [one.init_cache(users, layout.slots) for one in caches]),
            self._calls(pair, dataclasses.replace(search, widths=widths), width, users),
        )

    def _calls(self, pair: Pair, search: SearchConfig, width: int, users: int) -> tuple[Pass, ...]:
        """Lists the model calls for `users` users if no user finishes early."""
        length, size = self.catalog.length, rows_at_a_time(users, search.row_share)
        passes = most_passes(users, size, length - 1) if length > 1 else 0
        later = [dataclasses.replace(one, times=passes) for one in later_round(pair, search, width, users)]
        return (*first_round(pair, search, width, users), *(later if passes else ()))

    def _fit(self, name: str, train: TrainConfig, loss, init_params, frozen, batch) -> Step:
        """Describes a training step of `fit`."""
        fit = train.fit(STEPS_PER_EPOCH)
        init = initializer(init_params, fit, self.mesh, frozen)
        state = sharding.abstract_on(jax.eval_shape(init.func, *init.args), self.mesh)
        placed = sharding.sharding(self.mesh, "batch")
        batch = {
            name: jax.ShapeDtypeStruct((train.batch_size, *shape), dtype, sharding=placed)
            for name, (shape, dtype) in batch.items()
        }
        given = (state, batch) if frozen is None else (state, batch, frozen)
        step = make_train_step(loss, fit.optim, self.mesh, accumulate=fit.accumulate)
        kept = {"parameters": (state["params"], frozen), "optimizer": (state["opt_state"], state.get("trained"))}
        other = batch, state["step"], state["key"]
        return Step(
            name, train.batch_size, lambda: step.lower(*given), kept | {"other": other}, state["params"], (), ()
        )

    def _pass(self, model: LlamaConfig, train: TrainConfig, tokens: int, n_out: int, trains) -> Pass:
        """Describes the pass over one part of an accumulated batch."""
        rows = train.batch_size / train.accumulate / (self.mesh.shape["data"] * self.mesh.shape["fsdp"])
        seen = min(tokens, self._prompt + self.catalog.length)
        return Pass(model, rows, tokens, seen, n_out, trains, times=train.accumulate)

    def _windows(self) -> dict:
        """Lists shape of a row and dtype of the arrays of a next-item batch."""
        width = (self._prompt + self.catalog.length,)
        return {"tokens": (width, jnp.int32), "valid": (width, bool), "predict": (width, bool)}

    def _beams(self) -> dict:
        """Lists shape of a row and dtype of the arrays of an alignment batch."""
        c, taught = self.config, max(self.catalog.length - 2, 0)
        batch = {"tokens": ((self._prompt,), jnp.int32), "valid": ((self._prompt,), bool), "next_id": ((), jnp.int32)}
        batch |= {"beams": ((taught, c.teacher.beams), jnp.int32), "list": ((c.teacher.beams,), jnp.int32)}
        if c.teacher.log_probs:
            children = max(int(np.diff(np.asarray(starts)).max()) for starts in self.trie.row_start)
            batch["log_probs"] = ((1 + taught * c.teacher.beams, children), jnp.float16)
        return batch

    def _widths(self, beams: int) -> tuple[int, ...]:
        return resolve_widths(self.config.decode.widths, self.prefixes[self.config.decode.score_norm], beams)

    def _whole(self, tree):
        placed = sharding.replicated(self.mesh)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), tree)


def _replaced(pretrained: Pretrained, base):
    """Lists the shapes of a base that the served model replaces.

    A run keeps the base too, so these shapes lie on the devices beside the served
    model.
    """
    if pretrained.lora is None:
        return base
    adapted = [TARGETS[name][:2] for name in pretrained.lora.targets]
    kernels = [base["layers"][group][ours]["kernel"] for group, ours in adapted]
    return kernels, base["embedding"], base.get("head")
