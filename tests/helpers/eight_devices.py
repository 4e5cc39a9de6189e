"""A process of its own, with 8 CPU devices: training and decoding on the meshes named, beside one device.

Prints a JSON object (tests/training/test_sharding.py, tests/serving/test_sharded.py).
"""

import functools
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaConfig, init_params
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import DecodeConfig, Setting
from atspeed_jax.training import sharding
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.training.sharding import MeshConfig, make_mesh
from atspeed_jax.training.step import initializer, make_train_step

MESHES = {
    "one": MeshConfig(data=1),
    "data": MeshConfig(8, 1, 1),
    "fsdp": MeshConfig(1, 8, 1),
    "mixed": MeshConfig(2, 2, 2),
    "tensor": MeshConfig(1, 1, 8),
    "split": MeshConfig(1, 4, 2),
}
SPECULATIVE = Setting.strict("draft", 5, DecodeConfig((6, 6), 2, "vocab"))
STEPS, LENGTH, BATCH, ITEMS = 20, 3, 16, 4
IDS = np.unique(np.random.default_rng(1).integers(0, 7, (60, LENGTH)), axis=0) + 2 + 7 * np.arange(LENGTH)
VOCAB = 2 + 7 * LENGTH  # odd, so that no mesh splits it
TARGET = LlamaConfig(VOCAB, 64, 128, 2, 8, 8, 8, 10_000.0, 1e-6, False, 0.1, "float32", False)
DRAFT = LlamaConfig(VOCAB, 32, 64, 1, 8, 8, 4, 10_000.0, 1e-6, True, 0.0, "float32", False)
OPTIM = OptimConfig(
    learning_rate=1e-3, warmup_steps=2, weight_decay=0.1, clip_norm=1.0, b1=0.9, b2=0.99, average=0.9, steps=STEPS
)
FIT = FitConfig(optim=OPTIM, steps=STEPS, eval_every=STEPS, patience=0, checkpoint_every=STEPS, log_every=1, seed=0)


def batches():
    rng = np.random.default_rng(2)
    for _ in range(STEPS):
        tokens = IDS[rng.integers(len(IDS), size=(BATCH, ITEMS))].reshape(BATCH, -1).astype(np.int32)
        tokens = np.concatenate([np.ones((BATCH, 1), np.int32), tokens], 1)
        yield {"tokens": tokens, "valid": tokens > 0, "predict": tokens > 1}


def train(mesh):
    """(losses, final parameters on the host, their shardings, the compiled step's text)."""
    state = initializer(functools.partial(init_params, TARGET), FIT, mesh)()
    step = make_train_step(training_loss(TARGET, LENGTH, 0.0), OPTIM, mesh)
    losses, text = [], None
    for batch in batches():
        placed = sharding.shard_batch(batch, mesh)
        if text is None:
            step = step.lower(state, placed).compile()
            text = step.as_text()
        state, metrics = step(state, placed)
        losses.append(float(metrics["loss"]))
    return losses, state["params"], text


def decode(mesh, brief):
    """Lists of 13 users (8 devices do not divide them), with random weights: layers stacked, then side by side.

    brief: by speculative search alone, on one device with stacked layers alone.
    """
    rng = np.random.default_rng(3)

    def params(model, seed):
        own = jax.tree.map(lambda x: 4 * x, init_params(model, jax.random.key(seed)))
        return jax.device_put(own, sharding.tree_shardings(own, mesh))

    trie = jax.device_put(build_trie(IDS), sharding.replicated(mesh))
    prior = jax.device_put(popularity_prior(trie, IDS, rng.random(len(IDS))), sharding.replicated(mesh))
    models = TARGET, params(TARGET, 1), DRAFT, params(DRAFT, 2)
    decoders = Decoders(*models, trie, prior, prefixes_by_norm(IDS), mesh=mesh if mesh.size > 1 else None)
    tokens = IDS[rng.integers(len(IDS), size=(13, ITEMS))].reshape(13, -1).astype(np.int32)
    tokens[:5, : 2 * LENGTH] = 0
    prompt = Prompt(jnp.asarray(np.concatenate([tokens, np.ones((13, 1), np.int32)], 1)), None)
    prompt = prompt.replace(valid=prompt.tokens > 0)
    searches = [SPECULATIVE] if brief else [SPECULATIVE, Setting.beam_search(5, "vocab")]
    apart = decoders.unrolled()
    check_split(apart.target_params, mesh)
    joined = "query_key_value" in apart.target_params["layers_0"]["attention"]
    assert joined == (mesh.size == mesh.shape["data"]), "a matrix that a mesh splits is not joined"
    layouts = [decoders] if brief and mesh.size == 1 else [decoders, apart]
    made = [layout.build(setting) for layout in layouts for setting in searches]
    return [jax.device_get(decode(prompt)) for decode in made]


def check_split(params, mesh):
    """Layers side by side are split as their names say, none whole on every device."""
    for leaf, wanted in zip(
        jax.tree.leaves(params), jax.tree.leaves(sharding.tree_shardings(params, mesh)), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), (leaf.sharding, wanted)


def relative(a, b) -> float:
    """Largest norm-wise relative difference of a tensor."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.linalg.norm(np.subtract(x, y)) / np.linalg.norm(y)) for x, y in pairs)


def gathered_sizes(text: str) -> list[int]:
    """Entries of the result of every all-gather of a compiled program."""
    shapes = re.findall(r"= \(?\w+\[([\d,]*)\]\S* all-gather", text)
    return [int(np.prod([int(size) for size in shape.split(",") if size], dtype=np.int64)) for shape in shapes]


def main():
    assert jax.device_count() == 8
    report = {"largest_stacked": max(x.size for x in jax.tree.leaves(param_shapes(TARGET)["layers"])), "meshes": {}}
    alone = None
    brief = sys.argv[1] == "brief"
    for name in ("one", *sys.argv[1 + brief :]):
        mesh = make_mesh(MESHES[name])
        losses, params, text = train(mesh)
        lists = decode(mesh, brief)
        found = losses, jax.device_get(params), lists
        alone = alone or found
        stacked = alone[2][: 2 - brief]  # layers side by side give the lists of stacks
        pairs = list(zip(lists, stacked * (len(lists) // len(stacked)), strict=True))
        kernel = params["layers"]["mlp"]["gate"]["kernel"]
        report["meshes"][name] = {
            "losses": float(np.max(np.abs(np.divide(losses, alone[0]) - 1))),
            "params": relative(found[1], alone[1]),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "part_of_kernel": kernel.addressable_shards[0].data.size / kernel.size,
            "gathered": gathered_sizes(text),
            "host": "callback" in text,
            "same_ids": [bool((a.ids == b.ids).all() and (a.valid == b.valid).all()) for a, b in pairs],
            "scores": max(float(np.abs(a.score - b.score).max()) for a, b in pairs),
            "same_calls": [bool((a.target_calls == b.target_calls).all()) for a, b in pairs],
            "calls": sorted({calls for one in lists[:: len(stacked)] for calls in one.target_calls.tolist()}),
            "rounds": [int(one.rounds) for one in lists],
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
